"""Identity's vendors: Cedar by cedarpy, JWT and JWKS by joserfc, keys of an issuer over HTTP."""

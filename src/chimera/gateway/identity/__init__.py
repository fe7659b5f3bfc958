"""Who asks: principals, what they may ask for, API keys, tokens of an issuer, tenants; pure rules and their ports."""

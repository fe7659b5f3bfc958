"""Facts: what happened, told to whoever wants to know, in the order in which it became true."""

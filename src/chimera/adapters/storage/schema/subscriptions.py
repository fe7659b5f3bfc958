"""Who wants to be told of which facts, and what could not be delivered."""

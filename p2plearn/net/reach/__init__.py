"""Being reached behind routers: how this node stands, relays, hole punching, port mapping."""

"""The only room that imports libp2p's host, transports and muxers."""

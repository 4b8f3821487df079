"""Moving chunks between two nodes: protocol, scheduler, the serving and the fetching end."""

"""How PyTorch comes to be served by gmlake. Importing this does nothing; importing gmlake.torch enables it."""

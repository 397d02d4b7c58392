"""What gmlake.torch raises of its own."""


class UnavailableError(RuntimeError):
    """gmlake cannot serve this PyTorch; PyTorch's own allocator is in place."""

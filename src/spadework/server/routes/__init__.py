"""The service's addresses, by what they are about. Each says who may use it; see `guarded`."""

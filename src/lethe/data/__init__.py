"""Images of every source, splits and deletion requests, batches on the device."""

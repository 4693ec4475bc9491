"""Facts about AWS, without I/O: partitions, error codes, denials. Import the module that you need."""

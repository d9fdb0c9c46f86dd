"""Where the bytes lie: spool, container format, object stores, and the way back to the original bytes."""

"""What stands behind the commands on files: plain functions that return what the command line prints."""

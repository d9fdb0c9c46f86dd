"""What happens after a study has arrived."""

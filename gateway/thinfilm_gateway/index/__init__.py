"""What is known of the bytes: SQLAlchemy models, one module a question, the job table."""

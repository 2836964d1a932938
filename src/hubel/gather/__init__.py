"""What the report draws: the trained net judged and looked at from all sides."""

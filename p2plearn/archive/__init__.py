"""Courses and what people say of them as one file that a person can carry: CAR files, written and read."""

"""What people say about courses, carried between nodes: ratings, discussion, catalogue announcements."""

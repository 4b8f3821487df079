"""What a course is: manifest, index, names, chunking, UnixFS. Formats only, all of it pure."""

"""Who has which course: Kademlia, provider records, the re-provide schedule."""

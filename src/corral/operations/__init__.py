"""Operations: durable long work, its queue, its progress, and its end."""

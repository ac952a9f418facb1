"""A synthetic KFER: drawn faces, label rows with the published counts, TFRecords of the published shape."""

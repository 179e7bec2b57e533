"""Files of a teacher's samples: writing them, judging, filtering and merging."""

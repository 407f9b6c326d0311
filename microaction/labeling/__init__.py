"""From an archive of videos to Parquet tables of windows, events, videos and failures, on Ray Data; and one video without Ray."""

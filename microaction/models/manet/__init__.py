"""MANet, and TSM and TSN, which are MANet without some of its parts."""

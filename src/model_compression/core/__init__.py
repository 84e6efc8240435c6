"""What every part uses: errors, configurations, files, names of code, random numbers. Networks are unknown here."""

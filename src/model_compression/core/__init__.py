"""What every part uses: errors, options, files, names of code, random numbers. Networks are unknown here."""

# Completion of tdxreclaim in fish; read on the first <Tab>.
_TDXRECLAIM_COMPLETE=fish_source tdxreclaim | source

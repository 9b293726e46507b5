# Completion of tdxreclaim in bash; read on the first <Tab>.
eval "$(_TDXRECLAIM_COMPLETE=bash_source tdxreclaim)"

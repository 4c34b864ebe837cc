cmd_status() { say ok; }
cmd_help() { say help; }

MAILBOX = "mailbox/new"
LIMIT = 100

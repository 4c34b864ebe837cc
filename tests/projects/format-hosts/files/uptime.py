LOGS = 'logs'

def hosts():
    for line in open('hosts.txt'):
        line = line.strip()
        if line and line[0] != '#':
            yield line

for host in hosts():
    try:
        with open('{}/{}.log'.format(LOGS, host)) as f:
            last = f.readlines()[-1].strip()
    except FileNotFoundError:
        last = 'NO LOG'
    print('{:<8}{}'.format(host, last))

import subprocess
import sys

result = subprocess.run([sys.executable, "tools/tokenize_words.py", "corpus.txt"], capture_output=True, text=True)
if result.returncode != 0:
    sys.stderr.write(result.stderr)
    sys.exit("tokenizer failed")
words = result.stdout.split("\n")[:-1]
print(len(words), "tokens,", len(set(words)), "types")
subprocess.check_call(["python3", "tools/tokenize_words.py", "corpus.txt", "-o", "tokens.txt"])

say() { echo "[tool] $(grep "^$1=" "$LIBDIR/messages" | cut -d= -f2-)"; }

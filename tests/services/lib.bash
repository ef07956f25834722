# What the scripts of this folder share: finding programs, free ports, temp folders, the life of a server.
# Sourced, never run.

fail() {
  echo "tests/services: $*" >&2
  exit 3
}

# The folder of the server's programs; Debian keeps them off the PATH.
postgres_bin() {
  local folder
  for folder in $(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -Vr) $(dirname "$(command -v initdb || echo /none/none)"); do
    [ -x "$folder/initdb" ] && [ -x "$folder/postgres" ] && echo "$folder" && return 0
  done
  return 1
}

java_is_new_enough() {
  local major
  command -v java >/dev/null || return 1
  major=$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -n 1)
  [ "${major:-0}" -ge 17 ]
}

# Jars are kept outside the checkout, in a folder named after what they were resolved from.
jars_folder() {
  echo "${XDG_CACHE_HOME:-$HOME/.cache}/tolk/kafka-$(sha256sum "$here/pom.xml" | cut -c1-12)"
}

jars_are_there() {
  [ -e "$(jars_folder)/complete" ]
}

# A port below the ephemeral range that nobody listens on now. Whoever starts a server on it tries again where somebody was faster.
free_port() {
  local port
  while :; do
    port=$((20000 + (RANDOM * 32768 + RANDOM) % 12000))
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port" && return; }
  done
}

# Serves the one who started the script, over its standard input: `kill` ends the server at once (SIGKILL), `start` starts it again on the
# same data and port, the end of the input stops all. So a starter that is itself killed leaves nothing behind.
# The script defines `start_server` (sets `server` to a process id, returns when it is ready) and `folder`.
serve() {
  local command
  while read -r command; do
    case $command in
      kill) kill_server && echo killed ;;
      start) start_server && echo ready ;;
      *) fail "unknown command '$command': kill or start" ;;
    esac
  done
}

# Kills the server and its children in one go, as a machine that loses power would.
kill_server() {
  local children
  [ -n "${server:-}" ] || return 0
  children=$(cat "/proc/$server/task/$server/children" 2>/dev/null) || true
  kill -KILL "$server" $children 2>/dev/null || true
  wait "$server" 2>/dev/null || true
  server=
}

stop_all() {
  trap - EXIT
  kill_server
  # Killed children may still be on their way out, with a file just made.
  for _ in $(seq 50); do
    rm -rf "$folder" 2>/dev/null && return
    sleep 0.1
  done
  rm -rf "$folder"
}

# A temp folder that goes with the script. `mktemp` makes it private; the server's user must get in.
own_folder() {
  folder=$(mktemp -d "${TMPDIR:-/tmp}/tolk-$1.XXXXXX")
  trap stop_all EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  trap 'exit 129' HUP
}

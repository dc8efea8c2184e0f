# Sourced by tests/programs/run: what is installed and made beforehand, and the programs with their cells.
# shellcheck shell=bash disable=SC2016 # what stands in single quotes is said later

# --- what is there -----------------------------------------------------------------------------------------------------------

packages=()
need() { # PACKAGE COMMAND
  have "$2" || packages+=("$1")
}
need gcc cc
need g++ g++
need make make
need ninja-build ninja
need cmake cmake
need git git
need gawk gawk
need mawk mawk
need xz-utils xz
need zstd zstd
need bzip2 bzip2
need p7zip-full 7z
need openssl openssl
need curl curl
need ffmpeg ffmpeg
need imagemagick /usr/bin/convert
need zsh zsh
need jq jq
need gdb gdb
need vim vim
need busybox-static busybox
need ghostscript gs
need graphviz dot
need bc bc
need lua5.4 lua5.4
need guile-3.0 guile
need tcl tclsh
need ocaml-nox ocaml
need erlang-base erl
need swi-prolog-nox swipl
need gfortran gfortran
need luajit luajit
need pandoc pandoc
need nasm nasm
need r-base-core R
need php-cli php
need ruby ruby
need perl perl
need nodejs node
need default-jdk-headless javac
need golang-go go
need sbcl sbcl
need sqlite3 sqlite3
need redis-server redis-server
need mariadb-server-core mariadbd
need mariadb-client-core mariadb
need memcached memcached
need nginx-light nginx
need apache2-bin apache2
need lighttpd lighttpd
need libxml2-utils xmllint
need python3-venv python3
need musl-tools musl-gcc
need pypy3 pypy3
need mono-mcs mcs
need mono-runtime mono
need fp-compiler fpc
need chicken-bin csc
need polyml poly
need povray povray
need tesseract-ocr tesseract
need etcd-server etcd
[ -n "$(compgen -G '/usr/lib/postgresql/*/bin/postgres')" ] || packages+=(postgresql)
if [ ${#packages[@]} != 0 ]; then
  # Together if possible; else one by one, so that one missing package does not cost the others.
  install --no-install-recommends "${packages[@]}" || for package in "${packages[@]}"; do install "$package"; done
fi

postgres_bin=$(compgen -G '/usr/lib/postgresql/*/bin' | tail -n 1)
german=de_DE.UTF-8
has_german() { LC_ALL=$german locale charmap 2>/dev/null | grep -q UTF-8 && locale -a | grep -qi '^de_DE\.utf-\?8$'; }
if ! has_german && have localedef; then localedef -i de_DE -f UTF-8 $german >/dev/null 2>&1; fi
has_german || { install locales && localedef -i de_DE -f UTF-8 $german; } >/dev/null 2>&1

python=$cache/venv/bin/python
# As people have them, with OpenBLAS of their own.
if [ ! -e "$cache/venv/complete" ] && [ -x /usr/bin/python3 ]; then
  mkdir -p "$cache" && /usr/bin/python3 -m venv "$cache/venv" >/dev/null 2>&1 &&
    "$python" -m pip -q install numpy scipy scikit-learn pandas celery >/dev/null 2>&1 && touch "$cache/venv/complete"
fi

# --- what they work on -------------------------------------------------------------------------------------------------------

have cc || { echo "programs: no C compiler" >&2; exit 1; }
cc -O1 -shared -fPIC -o "$work/before.so" "$here/before.c" || exit 1
head -c 40000000 /dev/zero >"$data/zeros"
tr '\0' x <"$data/zeros" >"$data/line"
{ cat "$data/line"; echo y; } >"$data/another"
seq 1 3000000 >"$data/lines"
seq 1 2000 >"$data/few"
chmod -R a+rX "$data"

# --- databases -----------------------------------------------------------------------------------------------------------------

run_postgres() { # FUNCTION SETTING...
  local sql=$1 server code restarted=no
  shift
  [ "$(id -u)" != 0 ] || as=(setpriv --reuid postgres --regid postgres --clear-groups)
  cp -r "$data/postgres" cluster && ${as[@]+chown -R postgres cluster} && ${as[@]+chown postgres .} || return 99
  Gx "$postgres_bin/postgres" -D cluster -k "$PWD" -c listen_addresses= -c "lc_messages=$LC_ALL" -c fsync=off "$@" &
  server=$!
  if wait_for "$server" ${as[@]+"${as[@]}"} psql -h "$PWD" -d postgres -c 'select 1'; then "$sql"; fi
  stop INT "$server"
  code=$?
  [ $restarted = no ] || { echo "the postmaster took an end for a crash" >&2; return 97; }
  return $code
}
query() { ${as[@]+"${as[@]}"} psql -h "$PWD" -d postgres -v ON_ERROR_STOP=0 -At "$@"; }
postgres_works() { query -c 'select sum(n) from generate_series(1, 100000) n'; }
checkpointer() { query -c "select pid from pg_stat_activity where backend_type = 'checkpointer'"; }
# A session that once was refused memory, and that its administrator ends later.
postgres_ends_session() {
  local session before_end
  before_end=$(checkpointer)
  query -c "select length(repeat('x', 400000000))" -c 'select pg_sleep(20)' >/dev/null &
  session=$!
  wait_for "$session" eval "[ \"\$(query -c \"select count(*) from pg_stat_activity where query like '%pg_sleep(20)' and state = 'active' and pid <> pg_backend_pid()\")\" = 1 ]"
  query -c "select pg_terminate_backend(pid) from pg_stat_activity where query = 'select pg_sleep(20)'"
  wait "$session"
  # Where the postmaster takes an end for a crash, it starts all its processes again.
  [ "$(checkpointer)" = "$before_end" ] || restarted=yes
}
postgres_cells() {
  starved 300Mi "${1-}"' options=(--measure address-space); run_postgres true -c shared_buffers=1GB'
  handled 200Mi 0 "${1-}"' run_postgres postgres_ends_session'
  benign 1Gi "${1-}"' run_postgres true -c huge_pages=on'
  generous "${1-}"' run_postgres postgres_works'
}
if [ -z "$postgres_bin" ]; then
  missing PostgreSQL "no server"
else
  mkdir "$data/postgres"
  { [ "$(id -u)" != 0 ] || chown postgres "$data/postgres"; }
  as=()
  [ "$(id -u)" != 0 ] || as=(setpriv --reuid postgres --regid postgres --clear-groups)
  ${as[@]+"${as[@]}"} "$postgres_bin/initdb" -N -D "$data/postgres" --locale=C --encoding=UTF8 >/dev/null 2>&1 </dev/null
  as=()
  program PostgreSQL psql
  postgres_cells
  if has_german; then
    program "PostgreSQL, German" psql
    postgres_cells "LC_ALL=$german;"
  fi
fi

run_mariadb() { # SQL SETTING...
  local sql=$1 server
  shift
  cp -r "$data/mariadb" db || return 99
  Gx mariadbd --no-defaults --user="$(id -un)" --datadir="$PWD/db" --socket="$PWD/s" --skip-networking --skip-grant-tables \
    --pid-file="$PWD/pid" "$@" &
  server=$!
  wait_for "$server" mariadb --no-defaults -S "$PWD/s" -e 'select 1' && mariadb --no-defaults -f -N -S "$PWD/s" -e "$sql"
  stop TERM "$server"
}
program MariaDB mariadbd mariadb
if [ -n "$current" ]; then
  mariadb-install-db --no-defaults --user="$(id -un)" --datadir="$data/mariadb" --auth-root-authentication-method=normal --skip-test-db >/dev/null 2>&1
fi
starved 300Mi 'run_mariadb "" --innodb-buffer-pool-size=4G'
handled 700Mi 0 'run_mariadb "select length(repeat(0x61, 900000000)); select * from missing.missing" --max-allowed-packet=1G --innodb-buffer-pool-size=16M'
benign 8Gi 'before=benign; run_mariadb "" --no-such-option'
generous 'run_mariadb "select sum(seq) from seq_1_to_100000; select version()" --innodb-buffer-pool-size=16M'

program SQLite sqlite3
starved 50Mi 'G sqlite3 :memory: "select length(randomblob(900000000))"'
own 'G sqlite3 :memory: "select * from missing"'
generous 'G sqlite3 :memory: "with recursive n(i) as (select 1 union all select i + 1 from n where i < 100000) select sum(i), group_concat(i) from n"'

run_redis() { # COMMAND... -- SETTING...
  local commands=() server
  while [ "$1" != -- ]; do commands+=("$1"); shift; done
  shift
  Gx redis-server --port 0 --unixsocket "$PWD/s" --save '' --enable-debug-command yes "$@" >&2 &
  server=$!
  if wait_for "$server" redis-cli -s "$PWD/s" ping; then
    for command in "${commands[@]}"; do eval "redis-cli -s '$PWD/s' $command" >>answers; done
  fi
  stop TERM "$server"
  local code=$?
  cat answers
  return $code
}
program Redis redis-server redis-cli
starved 100Mi 'run_redis "debug populate 5000000 k 100" --'
own 'G redis-server --port nonsense'
generous 'run_redis "set a 1" "incr a" "setrange b 1000000 x" "info keyspace" --'

program memcached memcached
starved 100Mi 'G memcached -u "$(id -un)" -s "$PWD/s" -o hashpower=28'
own 'G memcached -u "$(id -un)" -s "$PWD/no/such/directory"'
generous 'Gx memcached -u "$(id -un)" -s "$PWD/s" & server=$!; wait_for $server test -S s; printf "set a 0 0 1\r\n1\r\nget a\r\nquit\r\n" | curl -s --http0.9 telnet://localhost --unix-socket s; stop TERM $server'

# --- web servers -----------------------------------------------------------------------------------------------------------------

run_nginx() { # EVENTS HTTP
  local server
  cp "$data/few" page && mkdir huge && truncate -s 900M huge/large
  printf '%s\n' "daemon off; master_process off; pid $PWD/pid; error_log stderr; events { $1 }" \
    "http { access_log off; client_body_temp_path $PWD/body; server { listen unix:$PWD/s; root $PWD; $2 } }" >conf
  Gx nginx -p "$PWD" -e stderr -c "$PWD/conf" &
  server=$!
  if wait_for "$server" test -S s; then
    curl -s --unix-socket s http://localhost/page
    curl -s --unix-socket s http://localhost/large >/dev/null
    curl -s --unix-socket s http://localhost/page
  fi
  stop "${STOP:-QUIT}" "$server"
}
program nginx nginx curl
starved 100Mi 'run_nginx "worker_connections 100000000;" ""'
handled 100Mi 0 'STOP=TERM run_nginx "worker_connections 100;" "location = /large { sendfile off; output_buffers 1 900m; root $PWD/huge; }"'
benign 8Gi 'before=benign; run_nginx "nonsense 1;" ""'
generous 'run_nginx "worker_connections 100;" ""'

run_apache() { # LINES
  local server modules=/usr/lib/apache2/modules
  cp "$data/few" page
  printf '%s\n' "ServerRoot \"$PWD\"" "ServerName localhost" "PidFile $PWD/pid" "Listen 127.0.0.1:$port" "ErrorLog /dev/stderr" "DocumentRoot \"$PWD\"" \
    "LoadModule mpm_event_module $modules/mod_mpm_event.so" "LoadModule authz_core_module $modules/mod_authz_core.so" \
    "Mutex pthread" "User #$(id -u nobody)" "Group #$(id -g nobody)" "$1" >conf
  [ "$(id -u)" = 0 ] || sed -i '/^User\|^Group/d' conf
  Gx apache2 -X -f "$PWD/conf" &
  server=$!
  if wait_for "$server" curl -s "http://127.0.0.1:$port/"; then curl -s "http://127.0.0.1:$port/page"; fi
  stop TERM "$server"
}
program "Apache httpd" apache2 curl
starved 200Mi 'port=4081 run_apache "ThreadStackSize 1000000000"'
own 'port=4082 run_apache "Nonsense on"'
generous 'port=4083 run_apache "LogLevel crit"'

run_lighttpd() { # LINES
  local server
  cp "$data/few" page
  printf '%s\n' "server.document-root = \"$PWD\"" "server.bind = \"$PWD/s\"" "$1" >conf
  Gx lighttpd -D -f conf &
  server=$!
  if wait_for "$server" test -S s; then curl -s --unix-socket s http://localhost/page; fi
  stop TERM "$server"
}
program lighttpd lighttpd curl
own 'run_lighttpd "nonsense"'
generous 'run_lighttpd ""'

program curl curl
starved 20Mi 'G curl -s -d @"$data/line" http://127.0.0.1:9/'
own 'G curl -s http://127.0.0.1:9/'
generous 'G curl -s "file://$data/lines"'

program OpenSSL openssl
starved 100Mi 'G openssl kdf -keylen 32 -kdfopt pass:a -kdfopt salt:b -kdfopt n:1048576 -kdfopt r:8 -kdfopt p:1 -kdfopt maxmem_bytes:8589934592 SCRYPT'
own 'G openssl x509 -in missing'
generous 'G openssl dgst -sha256 "$data/lines"'

# --- Python and what computes with it -----------------------------------------------------------------------------------------------

handler='
try:
    %s
except MemoryError:
    print("too large", file=sys.stderr)
'
python_cells() { # PYTHON LIMIT IMPORTS LARGE WORK
  local handled
  # shellcheck disable=SC2059 # it is one
  handled=$(printf "$handler" "$4")
  put starved "$2" "G $1 -c 'import sys
$3
$4'"
  handled "$2" 1 "G $1 -c 'import sys
$3
$handled
{}[\"no such key\"]'"
  put benign 8Gi "before=benign; G $1 -c 'import sys
$3
sys.exit(3)'"
  put generous 8Gi "G $1 -c 'import sys
$3
$5'"
}
program CPython /usr/bin/python3
python_cells /usr/bin/python3 100Mi 'import json, decimal' 'rows = [bytearray(10**6) for _ in range(2000)]' 'print(json.dumps(list(range(100000))))'
has_numpy() { [ -e "$cache/venv/complete" ] && return; missing "$1" "no wheels"; return 1; }
if has_numpy "numpy, scikit-learn, pandas, Celery"; then
  program numpy "$python"
  python_cells "$python" 400Mi 'import numpy' 'a = numpy.ones((20000, 20000))' 'print(numpy.linalg.svd(numpy.arange(10000.).reshape(100, 100))[1][:2].round())'
  program scikit-learn "$python"
  python_cells "$python" 600Mi 'import sklearn.linear_model, sklearn.metrics, numpy' 'd = sklearn.metrics.pairwise_distances(numpy.ones((20000, 5)))' \
    'print(sklearn.linear_model.LinearRegression().fit([[0], [1], [2]], [0, 1, 2]).coef_.round(3))'
  program pandas "$python"
  python_cells "$python" 600Mi 'import pandas' 'd = pandas.DataFrame({"a": range(10**6)}); d = d.merge(d.head(3000), how="cross")' \
    'print(pandas.DataFrame({"a": [1, 2, 2]}).groupby("a").size())'
  cat >"$data/tasks.py" <<'TASKS'
import os, celery
app = celery.Celery("tasks", broker="filesystem://")
for folder in "queue", "control":
    os.makedirs(folder, exist_ok=True)
app.conf.update(broker_transport_options={"data_folder_in": "queue", "data_folder_out": "queue", "control_folder": "control"})
@app.task
def take(mib):
    block = bytearray(mib << 20)
    print(f"took {mib}", flush=True)
TASKS
  # A task, and then the administrator's SIGTERM.
  run_celery() { # POOL MIB
    local pool=$1 mib=$2 server
    cp "$data/tasks.py" . && "$python" -c "import tasks; tasks.take.delay($mib); tasks.take.delay(1)" || return 99
    Gx "$python" -m celery -A tasks worker -P "$pool" -c 1 --without-mingle --without-gossip --without-heartbeat -l warning >&2 &
    server=$!
    wait_for "$server" grep -q 'took 1$' err
    stop TERM "$server"
  }
  program Celery "$python"
  starved 200Mi 'run_celery solo 2000'
  # The worker hands it to its parent, which was refused nothing.
  handled 200Mi 1 'run_celery prefork 2000'
  benign 8Gi 'before=benign; G "$python" -m celery -A no_such_module worker'
  generous 'run_celery solo 1'
  program "Celery --exit-on-uncaught" "$python"
  starved 200Mi 'options=(--exit-on-uncaught); run_celery solo 2000'
  generous 'options=(--exit-on-uncaught); run_celery solo 1'
fi
cat >"$data/pool.py" <<'POOL'
import multiprocessing, sys
def take(mib):
    return len(bytearray(mib << 20))
if __name__ == "__main__":
    with multiprocessing.Pool(2) as pool:
        try:
            sizes = pool.map(take, [1, int(sys.argv[1]), 2])
        except MemoryError:
            sizes = "a worker was refused"
        print(sizes, flush=True)
    rows = [bytearray(1 << 20) for _ in range(int(sys.argv[2]))]
    sys.exit(int(sys.argv[3]))
POOL
program multiprocessing.Pool /usr/bin/python3
starved 100Mi 'G /usr/bin/python3 "$data/pool.py" 2 1000 0'
handled 100Mi 3 'G /usr/bin/python3 "$data/pool.py" 1000 1 3'
benign 8Gi 'before=benign; G /usr/bin/python3 "$data/pool.py" 1 1 3'
generous 'G /usr/bin/python3 "$data/pool.py" 3 1 0'

# --- other languages -----------------------------------------------------------------------------------------------------------------

program Node node
starved 200Mi 'G node -e "const rows = []; for (let i = 0; i < 3000; i++) rows.push(Buffer.alloc(1 << 20, 1))"'
handled 200Mi 3 'G node -e "try { Buffer.alloc(3000000000, 1) } catch (error) { console.error(\"too large\") } setTimeout(() => process.exit(3), 100)"'
benign 8Gi 'before=benign; G node -e "process.exit(3)"'
generous 'G node -e "console.log(JSON.stringify([...Array(100000).keys()]))"'

program Ruby ruby
starved 100Mi 'G ruby -e "rows = (1..3000).map { \"x\" * 1_000_000 }"'
handled 100Mi 1 'G ruby -e "begin; \"x\" * 3_000_000_000; rescue NoMemoryError; warn \"too large\"; end; Integer(\"no number\")"'
benign 8Gi 'before=benign; G ruby -e "exit 3"'
generous 'G ruby -e "puts (1..100000).map { |i| i * i }.inspect"'

program Perl perl
starved 100Mi 'G perl -e "push @rows, q(x) x 1e6 . \$_ for 1 .. 3000"'
own 'G perl -e "exit 3"'
generous 'G perl -e "print join q( ), map { \$_ * \$_ } 1 .. 100000"'

program PHP php
starved 100Mi 'G php -d memory_limit=-1 -r "for (;;) \$rows[] = str_repeat(\"x\", 1000000);"'
own 'G php -r "throw new Exception(\"no such key\");"'
generous 'G php -r "echo json_encode(range(1, 100000));"'

cat >"$data/Eater.java" <<'JAVA'
import java.util.*;
public class Eater {
    static List<Object> rows = new ArrayList<>();
    public static void main(String[] arguments) throws Exception {
        int mib = Integer.parseInt(arguments[0]);
        // One that is full has no memory for itself either: who is to get over it asks for all at once.
        int bytes = arguments.length > 1 ? 1 << 30 : 1 << 20;
        try {
            for (int i = 0; i < mib; i++) rows.add(java.nio.ByteBuffer.allocateDirect(bytes));
        } catch (OutOfMemoryError error) {
            rows.clear();
            if (arguments.length < 2) throw error;
            System.err.println("too large");
        }
        System.out.println("rows: " + rows.size());
        if (arguments.length > 1) {
            for (int i = 0; i < 2000; i++) rows.add(Integer.toString(i));
            System.exit(Integer.parseInt(arguments[1]));
        }
    }
}
JAVA
program Java javac java
[ -z "$current" ] || javac -d "$data" "$data/Eater.java" 2>/dev/null
java='java -Xmx200m -XX:MaxDirectMemorySize=8g -XX:+UseSerialGC -XX:ReservedCodeCacheSize=32m -XX:TieredStopAtLevel=1 -cp "$data" Eater'
starved 400Mi "G $java 3000"
handled 400Mi 3 "G $java 3000 3"
benign 8Gi "before=benign; G $java 1 3"
generous "G $java 100"

cat >"$data/eater.go" <<'GO'
package main

import (
	"fmt"
	"os"
	"strconv"
	"syscall"
)

var rows [][]byte

func eat(mib int) {
	for i := 0; i < mib; i++ {
		row := make([]byte, 1<<20)
		for at := 0; at < len(row); at += 4096 {
			row[at] = 1
		}
		rows = append(rows, row)
	}
}

// starve MIB | handled CODE | benign CODE | work
func main() {
	number := 0
	if len(os.Args) > 2 {
		number, _ = strconv.Atoi(os.Args[2])
	}
	switch os.Args[1] {
	case "starve":
		eat(number)
	case "handled":
		_, err := syscall.Mmap(-1, 0, 20<<30, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
		fmt.Println("without the cache:", err != nil)
		eat(50)
		os.Exit(number)
	case "benign":
		_, err := syscall.Mmap(-1, 0, 64<<20, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE|0x40000)
		_ = err
		os.Exit(number)
	default:
		eat(20)
		fmt.Println(len(rows))
	}
}
GO
sed 's/^import (/import "C"\n&/' "$data/eater.go" >"$data/eaterc.go"
program "Go, static" go
[ -z "$current" ] || (cd "$data" && CGO_ENABLED=0 go build -o eater-static eater.go) >/dev/null 2>&1
program "Go, dynamic (cgo)" go cc
[ -z "$current" ] || (cd "$data" && CGO_ENABLED=1 go build -o eater-dynamic eaterc.go) >/dev/null 2>&1
for way in static dynamic; do
  current="Go, static"
  [ $way = static ] || current="Go, dynamic (cgo)"
  [ -e "$data/eater-$way" ] || continue
  starved 200Mi "G \"\$data/eater-$way\" starve 1000"
  handled 200Mi 3 "G \"\$data/eater-$way\" handled 3"
  benign 1Gi "G \"\$data/eater-$way\" benign 3"
  generous "G \"\$data/eater-$way\" work"
done

program SBCL sbcl
starved 300Mi 'G sbcl --noinform --non-interactive --eval "(print 1)"'
handled 18Gi 3 'before=refused; G sbcl --noinform --non-interactive --eval "(sb-ext:exit :code 3)"'
benign 18Gi 'before=benign; G sbcl --noinform --non-interactive --eval "(sb-ext:exit :code 3)"'
put generous 18Gi 'G sbcl --noinform --non-interactive --eval "(print (loop for i below 1000 collect (* i i)))"'

program Lua lua5.4
starved 50Mi 'G lua5.4 -e "local rows = {} for i = 1, 3000 do rows[i] = string.rep(\"x\", 1000000) .. i end"'
handled 50Mi 1 'G lua5.4 -e "print(pcall(string.rep, \"x\", 1000000000)) for i = 1, 1000 do local t = {i} end error(\"no such key\")"'
benign 8Gi 'before=benign; G lua5.4 -e "os.exit(3)"'
generous 'G lua5.4 -e "for i = 1, 100000 do print(i * i) end"'

program LuaJIT luajit
starved 50Mi 'G luajit -e "local rows = {} for i = 1, 3e7 do rows[i] = i end"'
handled 50Mi 1 'G luajit -e "print(pcall(string.rep, \"x\", 1000000000)) for i = 1, 1000 do local t = {i} end error(\"no such key\")"'
benign 8Gi 'before=benign; G luajit -e "os.exit(3)"'
generous 'G luajit -e "for i = 1, 100000 do print(i * i) end"'

# Its malloc is tcmalloc, which defines mmap by syscall(2).
program SWI-Prolog swipl
starved 100Mi 'G swipl -g "numlist(1, 5000000, Rows), length(Rows, N), writeln(N), halt" -t "halt(1)"'
own 'G swipl -g "halt(3)"'
generous 'G swipl -g "forall(between(1, 1000, I), (S is I * I, writeln(S))), halt"'

program Erlang erl
starved 150Mi 'G erl -noinput -eval "io:format(\"~p~n\", [length(lists:seq(1, 30000000))]), halt(0)."'
own 'G erl -noinput -eval "halt(3)."'
generous 'G erl -noinput -eval "[io:format(\"~p~n\", [I * I]) || I <- lists:seq(1, 1000)], halt(0)."'

program Fortran gfortran
printf 'program starve\nreal, allocatable :: a(:)\nallocate(a(100000000))\na = 1\nprint *, a(5)\nend\n' >"$data/starve.f90"
printf 'program handle\nreal, allocatable :: a(:)\ninteger :: state, i\nallocate(a(100000000), stat=state)\nif (state == 0) stop 1\ndo i = 1, 1000\n  allocate(a(10000))\n  a = i\n  deallocate(a)\nend do\nopen(10, file="/nowhere/there", status="old")\nend\n' >"$data/handle.f90"
printf 'program work\ninteger :: i\ndo i = 1, 1000\n  print *, i * i\nend do\nend\n' >"$data/work.f90"
for each in starve handle work; do [ -z "$current" ] || gfortran -o "$data/$each-f" "$data/$each.f90"; done
starved 100Mi 'G "$data/starve-f"'
handled 100Mi 2 'G "$data/handle-f"'
generous 'G "$data/work-f"'

program pandoc pandoc
[ -z "$current" ] || for ((i = 0; i < 100000; i++)); do printf '# h %d\n\ntext *a* b\n\n' $i; done >"$data/long.md"
starved 150Mi 'G pandoc "$data/long.md" -o "$data/long.html"'
own 'G pandoc --from nothing <<<text'
generous 'G pandoc --from markdown --to html <<<"# one *two*"'

program NASM nasm
[ -z "$current" ] || { echo 'section .data'; for ((i = 0; i < 400000; i++)); do echo "x$i: dq $i"; done; } >"$data/long.asm"
starved 30Mi 'G nasm -f elf64 -o "$data/long.o" "$data/long.asm"'
own 'G nasm -f elf64 -o "$data/none.o" "$data/none.asm"'
generous 'echo "section .data" >a.asm; G nasm -f elf64 -o a.o a.asm && cat a.o'

program Guile guile
export GUILE_AUTO_COMPILE=0
starved 200Mi 'G guile -c "(define rows (map (lambda (i) (make-vector 1000000 i)) (iota 300)))"'
own 'G guile -c "(exit 3)"'
generous 'G guile -c "(display (map (lambda (i) (* i i)) (iota 1000)))"'

program R R
starved 200Mi 'G R --vanilla --slave -e "x <- numeric(1e9)"'
handled 200Mi 1 'G R --vanilla --slave -e "x <- tryCatch(numeric(1e9), error = function(e) message(\"too large\")); stop(\"no such column\")"'
benign 8Gi 'before=benign; G R --vanilla --slave -e "quit(status = 3)"'
generous 'G R --vanilla --slave -e "print(summary(1:1000))"'

program Tcl tclsh
starved 100Mi 'echo "for {set i 0} {\$i < 3000} {incr i} {lappend rows [string repeat \$i 300000]}" >a.tcl; G tclsh a.tcl'
own 'G tclsh <<<"exit 3"'
generous 'G tclsh <<<"for {set i 0} {\$i < 1000} {incr i} {puts [expr {\$i * \$i}]}"'

program OCaml ocaml
echo 'let rows = List.init 3000 (fun _ -> Bytes.make 1_000_000 (Char.chr 120))' >"$data/starve.ml"
echo 'let () = (try ignore (Bytes.create 3_000_000_000) with Out_of_memory -> prerr_endline "too large"); failwith "no such key"' >"$data/handle.ml"
echo 'let () = List.iter (fun i -> Printf.printf "%d\n" (i * i)) (List.init 1000 Fun.id)' >"$data/work.ml"
starved 100Mi 'G ocaml "$data/starve.ml"'
handled 100Mi 2 'G ocaml "$data/handle.ml"'
benign 8Gi 'before=benign; G ocaml "$data/missing.ml"'
generous 'G ocaml "$data/work.ml"'

program PyPy pypy3
starved 200Mi 'G pypy3 -c "rows = [bytearray(1 << 20) for _ in range(4000)]"'
printf 'try: bytearray(1 << 33)\nexcept MemoryError: print("does without")\n{}["x"]\n' >"$data/handle.pypy"
handled 200Mi 1 'G pypy3 "$data/handle.pypy"'
benign 8Gi 'before=benign; G pypy3 -c "raise SystemExit(3)"'
generous 'G pypy3 -c "print(sum(range(100000)))"'

program Mono mcs mono
cat >"$data/eater.cs" <<'CSHARP'
using System;
using System.Collections.Generic;
class Eater {
    static void Eat(List<byte[]> rows) {
        for (;;) { var row = new byte[1 << 24]; for (int i = 0; i < row.Length; i += 4096) row[i] = 1; rows.Add(row); }
    }
    static int Main(string[] words) {
        if (words[0] == "starve") Eat(new List<byte[]>());
        if (words[0] == "handle") {
            var rows = new List<byte[]>();
            try { Eat(rows); } catch (OutOfMemoryException) { rows.Clear(); GC.Collect(); }
            throw new InvalidOperationException("closed");
        }
        Console.WriteLine(words.Length);
        return words[0] == "fail" ? 3 : 0;
    }
}
CSHARP
[ -z "$current" ] || mcs -out:"$data/eater.exe" "$data/eater.cs" >/dev/null || missing Mono "it does not compile"
starved 200Mi 'G mono "$data/eater.exe" starve'
handled 200Mi 1 'G mono "$data/eater.exe" handle'
benign 8Gi 'before=benign; G mono "$data/eater.exe" fail'
generous 'G mono "$data/eater.exe" work'

# Its compiler links statically.
program "Free Pascal" fpc
cat >"$data/eater.pas" <<'PASCAL'
program eater;
uses sysutils;
var rows: array of array of byte; n: longint;
begin
  n := 0;
  while paramstr(1) = 'starve' do begin
    setlength(rows, n + 1); setlength(rows[n], 1 shl 20); fillchar(rows[n][0], 1 shl 20, 1); inc(n);
  end;
  if paramstr(1) = 'handle' then
    try setlength(rows, 1); setlength(rows[0], 1 shl 30); except on EOutOfMemory do writeln('does without'); end;
  if paramstr(1) = 'work' then writeln(n) else raise Exception.Create('no such key');
end.
PASCAL
[ -z "$current" ] || fpc -Mobjfpc -o"$data/pascal" "$data/eater.pas" >/dev/null 2>&1 || missing "Free Pascal" "it does not compile"
starved 64Mi 'G "$data/pascal" starve'
handled 64Mi 217 'G "$data/pascal" handle'
benign 8Gi 'G "$data/pascal" fail'
generous 'G "$data/pascal" work'

program "Chicken Scheme" csc
echo '(define (eat rows) (eat (cons (make-vector 131072 0) rows))) (if (equal? (car (command-line-arguments)) "starve") (eat (list)) (begin (print 7) (exit (string->number (car (command-line-arguments))))))' >"$data/eater.scm"
[ -z "$current" ] || (cd "$data" && csc -prologue <(echo "(import (chicken process-context))") -o chicken eater.scm >/dev/null 2>&1) || missing "Chicken Scheme" "it does not compile"
starved 100Mi 'G "$data/chicken" starve'
own 'G "$data/chicken" 3'
generous 'G "$data/chicken" 0'

program "Poly/ML" poly
echo 'fun eat rows = eat (Array.array (131072, 1.5) :: rows); eat [];' >"$data/starve.sml"
starved 200Mi 'G poly -q --error-exit --use "$data/starve.sml"'
own 'G poly -q --error-exit --use "$data/none.sml"'
generous 'G poly -q --error-exit <<<"List.tabulate (100, fn n => n * n);"'

program POV-Ray povray
echo '#declare a = array[100000000];' >"$data/starve.pov"
echo 'camera { location <0, 0, -3> look_at 0 } light_source { <2, 4, -3> color rgb 1 } sphere { 0, 1 pigment { color rgb 1 } }' >"$data/scene.pov"
starved 100Mi 'G povray "+I$data/starve.pov" +W10 +H10 -D'
own 'G povray "+I$data/none.pov" +W10 +H10 -D'
generous 'G povray "+I$data/scene.pov" +W80 +H60 -D -GA +FP +O- | wc -c; exit "${PIPESTATUS[0]}"'

program Tesseract tesseract
{ printf 'P5 6000 6000 255\n'; tr '\0' '\377' <"$data/zeros" | head -c 36000000; } >"$data/page.pgm"
starved 40Mi 'G tesseract "$data/page.pgm" page'
own 'G tesseract "$data/none.pgm" page'
generous 'head -c 40000 "$data/page.pgm" | sed "1s/.*/P5 150 150 255/" >small.pgm; G tesseract small.pgm page; code=$?; cat page.txt; exit $code'

program etcd etcd
starved 20Mi 'G etcd --data-dir here'
own 'G etcd --no-such-option'
generous 'G etcd --version'

cat >"$data/eater.rs" <<'RUST'
use std::hint::black_box;
fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments[1] == "starve" {
        let rows: Vec<Vec<u8>> = (0..3000).map(|_| black_box(vec![1; 1 << 20])).collect();
        println!("{}", rows.len());
    }
    if arguments[1] == "handled" {
        println!("{}", black_box(Vec::<u8>::new()).try_reserve(20 << 30).is_err());
        let kept: Vec<String> = (0..1000).map(|i| i.to_string()).collect();
        panic!("no such key among {}", kept.len());
    }
    println!("{}", (0..1000u64).map(|i| i.to_string()).collect::<Vec<_>>().join(" "));
    std::process::exit(if arguments[1] == "fail" { 3 } else { 0 });
}
RUST
program "Rust, no guard of its own" rustc
[ -z "$current" ] || rustc -O -o "$data/eater-rust" "$data/eater.rs" 2>/dev/null
starved 100Mi 'G "$data/eater-rust" starve'
handled 100Mi 101 'G "$data/eater-rust" handled'
benign 8Gi 'before=benign; G "$data/eater-rust" fail'
generous 'G "$data/eater-rust" work'

# --- compilers and build tools ------------------------------------------------------------------------------------------------------

echo 'int main(void) { return 0; }' >"$data/small.c"
echo 'this is no C' >"$data/wrong.c"
{ echo 'int table[] = {'; seq -s , 1 300000; echo '};'; } >"$data/large.c"
{ echo '#include <map>'; echo '#include <string>'; echo '#include <regex>'; echo 'std::map<std::string, std::regex> table;'; } >"$data/large.cc"
program "gcc (cc1)" gcc
cc1=$(gcc -print-prog-name=cc1 2>/dev/null)
starved 30Mi 'G "$cc1" -quiet -o /dev/null "$data/large.c"'
own 'G "$cc1" -quiet -o /dev/null "$data/wrong.c"'
generous 'G "$cc1" -quiet -o - "$data/small.c"'
program "gcc (the driver)" gcc
starved_below 30Mi 'G gcc -c -o o "$data/large.c"'
own 'G gcc -c -o o "$data/wrong.c"'
generous 'G gcc -S -o - "$data/small.c"'
program "g++ --any-descendant" g++
starved 40Mi 'options=(--any-descendant); G g++ -c -o o "$data/large.cc"'
own 'G g++ -c -o o "$data/wrong.c" -x c++'
generous 'G g++ -S -o - "$data/small.c"'
program "ld" ld
starved 20Mi 'G ld -r -b binary -o o "$data/zeros"'
own 'G ld -o o missing.o'
generous 'cp "$data/few" .; G ld -r -b binary -o o few; cksum o'

large_row='/usr/bin/python3 -c "bytearray(10**9)"'
program "make -j" make python3
starved_below 100Mi 'printf "all: a b\na b:\n\t%s\n" "$large_row" >Makefile; G make -s -j2'
handled 100Mi 2 'printf "all:\n\t-%s\n\tfalse\n" "$large_row" >Makefile; G make -s'
benign 8Gi 'before=benign; echo "all: missing" >Makefile; G make -s'
generous 'printf "all: a b\na b:\n\t@echo built\n" >Makefile; G make -j2'
program "make, itself" make
starved 20Mi 'printf "%s\n" "text := \$(shell cat \$(data)/line \$(data)/line)" "all:" >Makefile; G make -s data="$data"'
own 'echo "all: missing" >Makefile; G make -s'
generous 'printf "%s\n" "text := \$(shell cat \$(data)/few)" "all:" "	@echo \$(words \$(text))" >Makefile; G make -s data="$data"'
program ninja ninja python3
starved_below 100Mi 'printf "%s\n" "rule r" "  command = $large_row" "build a: r" "build b: r" >build.ninja; G ninja'
own 'G ninja'
generous 'printf "%s\n" "rule r" "  command = echo built" "build a: r" >build.ninja; G ninja'
program CMake cmake
starved 100Mi 'echo "string(REPEAT x 500000000 text)" >a.cmake; G cmake -P a.cmake'
own 'echo "message(FATAL_ERROR wrong)" >a.cmake; G cmake -P a.cmake'
generous 'echo "string(REPEAT x 5000 text) 
message(\${text})" >a.cmake; G cmake -P a.cmake'

{ echo 'pub fn f() -> u64 { 0'; seq -f '+ std::hint::black_box(%.0f)' 1 2500; echo '}'; } >"$data/large.rs"
rustc_real=$(rustc --print sysroot 2>/dev/null)/bin/rustc
program rustc "$rustc_real"
starved 60Mi 'G "$rustc_real" --crate-type lib -o o "$data/large.rs"'
own 'G "$rustc_real" --crate-type lib -o o "$data/wrong.c"'
generous 'G "$rustc_real" --crate-type lib --emit asm -o - "$data/eater.rs" | wc -l'
cargo_project() { # FILE
  mkdir -p project/src && cp "$1" project/src/lib.rs
  printf '[package]\nname = "p"\nversion = "0.1.0"\nedition = "2021"\n' >project/Cargo.toml
  export CARGO_TARGET_DIR=$PWD/target
}
cargo_real=$(rustc --print sysroot 2>/dev/null)/bin/cargo
program cargo "$cargo_real"
starved_below 60Mi 'cargo_project "$data/large.rs"; RUSTC=$rustc_real G "$cargo_real" build -q --offline --manifest-path project/Cargo.toml'
own 'cargo_project "$data/wrong.c"; RUSTC=$rustc_real G "$cargo_real" build -q --offline --manifest-path project/Cargo.toml'
generous 'cargo_project "$data/eater.rs"; RUSTC=$rustc_real G "$cargo_real" build -q --offline --manifest-path project/Cargo.toml && ls target/debug'

program git git
starved 40Mi 'G git diff --no-index --stat "$data/lines" "$data/another"'
own 'G git -C missing status'
generous 'G git diff --no-index --stat "$data/lines" "$data/few"'

# --- GNU tools, in two languages ------------------------------------------------------------------------------------------------------

gnu_tools() { # SUFFIX LANGUAGE
  local l="LC_ALL=$2;"
  program "GNU sort$1" sort
  starved 20Mi "$l"' G sort "$data/zeros"'
  handled 60Mi 2 "$l"' G sort -S 400M "$data/lines" >/dev/full'
  benign 8Gi "before=benign; $l"' G sort missing'
  generous "$l"' G sort -n "$data/lines"'
  program "GNU awk$1" gawk
  starved 50Mi "$l"' G gawk "{ rows[NR] = \$0 }" "$data/lines"'
  own "$l"' G gawk "BEGIN { exit 2 }"'
  generous "$l"' G gawk "{ sum += \$1 } END { print sum }" "$data/lines"'
  program "GNU grep$1" grep
  starved 20Mi "$l"' G grep -a x "$data/zeros"'
  own "$l"' G grep x missing'
  generous "$l"' G grep -c 77 "$data/lines"'
  program "GNU sed$1" sed
  starved 10Mi "$l"' G sed ":a; N; \$!ba; s/x/y/" "$data/lines"'
  own "$l"' G sed y missing'
  generous "$l"' G sed s/1/one/ "$data/lines"'
  program "GNU tar$1" tar
  starved 50Mi "$l"' G tar -b 1000000 -cf archive "$data/few"'
  own "$l"' G tar -xf missing'
  generous "$l"' G tar -C "$data" --mtime=@0 -cf - few'
  program "GNU diff$1" diff
  starved 20Mi "$l"' G diff "$data/lines" "$data/another"'
  own "$l"' G diff missing "$data/few"'
  generous "$l"' G diff "$data/few" "$here/programs.sh"'
  program "bash$1" bash
  starved 30Mi "$l"' G bash -c "text=\$(cat \"\$1\"); echo \${#text}" bash "$data/line"'
  own "$l"' G bash -c "exit 3"'
  generous "$l"' G bash -c "for i in {1..10000}; do echo \$i; done"'
}
gnu_tools "" C
if has_german; then gnu_tools ", German" $german; else missing "GNU tools in German" "no locale $german"; fi

program mawk mawk
starved 50Mi 'G mawk "{ rows[NR] = \$0 }" "$data/lines"'
own 'G mawk "{ sum += \$1 } END { exit 2 }" "$data/few"'
generous 'G mawk "{ sum += \$1 } END { print sum }" "$data/lines"'
program bc bc
starved 50Mi 'G bc <<<"scale = 400000000; 1 / 3"'
own 'G bc missing'
generous 'G bc -l <<<"scale = 500; 4 * a(1)"'
program dash dash
starved 20Mi 'G dash -c "text=\$(cat \"\$1\"); echo \${#text}" dash "$data/line"'
own 'G dash -c "exit 3"'
generous 'G dash -c "for i in 1 2 3; do echo \$i; done"'
program zsh zsh
starved 30Mi 'G zsh -fc "text=\$(cat \"\$1\"); echo \${#text}" zsh "$data/line"'
own 'G zsh -fc "exit 3"'
generous 'G zsh -fc "for i in {1..1000}; do echo \$i; done"'
program "busybox, static" busybox
starved 20Mi 'G busybox sort "$data/zeros"'
generous 'G busybox sort -n "$data/few"'

# --- wrappers ------------------------------------------------------------------------------------------------------------------------

program "sh -c '…; exit \$?'" sh python3
starved 100Mi 'G sh -c "$large_row; exit \$?"'
handled 100Mi 3 'G sh -c "$large_row; exit 3"'
benign 8Gi 'before=benign; G sh -c "/usr/bin/python3 -c 0; exit 3"'
generous 'G sh -c "/usr/bin/python3 -c \"print(1)\"; exit \$?"'
program xargs xargs python3
starved_below 100Mi 'echo 1000000000 | G xargs /usr/bin/python3 -c "import sys; bytearray(int(sys.argv[1]))"'
own 'echo a | G xargs false'
generous 'seq 100 | G xargs echo'
program "env, nice, timeout" env nice timeout python3
starved 100Mi 'G env A=1 nice timeout 50 /usr/bin/python3 -c "bytearray(10**9)"'
own 'G env A=1 nice timeout 50 /usr/bin/python3 -c "import sys; sys.exit(3)"'
generous 'G env A=1 nice timeout 50 /usr/bin/python3 -c "print(1)"'

# --- what packs, draws and edits ----------------------------------------------------------------------------------------------------------

program xz xz
starved 100Mi 'G xz -9 -T1 -c "$data/few" | wc -c; exit ${PIPESTATUS[0]}'
own 'G xz -dc missing'
generous 'G xz -c "$data/few" | cksum'
program zstd zstd
starved 100Mi 'G zstd -q --ultra -22 --long=30 -c "$data/zeros" | wc -c; exit ${PIPESTATUS[0]}'
own 'G zstd -qdc missing'
generous 'G zstd -qc "$data/lines" | cksum'
program gzip gzip
own 'G gzip -dc missing'
generous 'G gzip -nc "$data/lines" | cksum'
program bzip2 bzip2
starved 3Mi 'G bzip2 -9c "$data/few" | wc -c; exit ${PIPESTATUS[0]}'
own 'G bzip2 -dc missing'
generous 'G bzip2 -c "$data/few" | cksum'
program 7-Zip 7z
starved 200Mi 'G 7z a -bd -mx=9 -md=512m a.7z "$data/zeros"'
own 'G 7z x -bd missing.7z'
generous 'cp "$data/few" .; G 7z a -bd a.7z few >/dev/null; 7z x -so a.7z'
program FFmpeg ffmpeg
# With too little memory it sleeps for ever, under a plain rlimit, too.
own 'G ffmpeg -v error -i missing -f null -'
generous 'G ffmpeg -v error -f lavfi -i testsrc=size=320x200:rate=5 -t 1 -f rawvideo - | cksum'
program ImageMagick /usr/bin/convert
own 'MAGICK_THREAD_LIMIT=2 G /usr/bin/convert missing.png a.png'
generous 'MAGICK_THREAD_LIMIT=2 G /usr/bin/convert -size 200x200 gradient: rgb:-'
program Ghostscript gs
starved 80Mi 'G gs -q -dNODISPLAY -dBATCH -c "/a 3000 array def 0 1 2999 { a exch 65535 string put } for"'
handled 80Mi 1 'G gs -q -dNODISPLAY -dBATCH -c "/a 3000 array def { 0 1 2999 { a exch 65535 string put } for } stopped clear nosuchname"'
benign 8Gi 'before=benign; G gs -q -dNODISPLAY -dBATCH -c "nosuchname"'
generous 'G gs -q -dNODISPLAY -dBATCH -c "0 1 1000 { = } for"'
program Graphviz dot
starved 60Mi 'G dot -Tpng -o /dev/null <<<"graph { size=\"200,200!\"; dpi=100; a -- b }"'
own 'G dot -Tsvg missing.gv'
generous 'G dot -Tsvg <<<"graph { a -- b -- c }"'
program xmllint xmllint
starved 50Mi '{ echo "<a>"; sed "s|.*|<b>&</b>|" "$data/lines"; echo "</a>"; } >a.xml; G xmllint --huge --format a.xml'
own 'echo "<a>" >a.xml; G xmllint --noout a.xml'
generous '{ echo "<a>"; sed "s|.*|<b>&</b>|" "$data/few"; echo "</a>"; } >a.xml; G xmllint --format a.xml'
program jq jq
starved 100Mi 'G jq -n "[range(30000000)] | length"'
own 'G jq -n "{} | error"'
generous 'G jq -nc "[range(10000)]"'
program gdb gdb
starved 100Mi 'G gdb -nx -batch -ex "set max-value-size unlimited" -ex "print sizeof(\"a\"[0]@2000000000)" -ex "print \"a\"[0]@2000000000"'
handled 200Mi 3 'G gdb -nx -batch -ex "python
try:
  x = bytearray(10**10)
except MemoryError: print(1)
end" -ex "quit 3"'
benign 8Gi 'before=benign; G gdb -nx -batch -ex "quit 3"'
generous 'G gdb -nx -batch -ex "print 6 * 7"'
program Vim vim
# In this mode it adds one to the code for an error.
handled 100Mi 4 'G vim -u NONE -es -c "let a = repeat(\"x\", 1500000000)" -c "call NoSuchFunction()" -c "cquit 3"'
benign 8Gi 'before=benign; G vim -u NONE -es -c "cquit 3"'
generous 'cp "$data/few" .; G vim -u NONE -es -c "%s/1/one/" -c "wq! result" few; cat result'

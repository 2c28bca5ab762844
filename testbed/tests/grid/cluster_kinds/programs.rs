//! What is run. Each of them counts until the file `STOP` is there ([`super::follow`]).

/// Four threads.
pub const THREADS: &str = "
import os, threading, time
def count(name):
    n = 0
    while not os.path.exists(os.environ['STOP']):
        os.write(1, f'{name} {n}\\n'.encode())
        n += 1
        time.sleep(0.05)
threads = [threading.Thread(target=count, args=(name,)) for name in 'abcd']
for thread in threads: thread.start()
for thread in threads: thread.join()
";

/// Children and a grandchild; their parents wait for them.
pub const FAMILY: &str = r#"
count() { n=0; while [ ! -e "$STOP" ]; do echo "$1 $n"; n=$((n+1)); sleep 0.05; done; }
(count a; exit 3) & p=$!
(count b & count c; wait) & q=$!
wait $p; echo "left $?"; wait $q; echo "left $?"
"#;

/// What the second reads is what the first wrote.
pub const PIPELINE: &str = r#"
gen() { n=0; while [ ! -e "$STOP" ]; do echo $n; n=$((n+1)); sleep 0.05; done; }
snk() { want=0; while read n; do
    [ "$n" = "$want" ] || echo "bad $n, not $want"; want=$((n+1)); echo "a $n"; done; }
gen | snk
"#;

/// One process.
pub const PERL: &str = r#"
$| = 1; my $n = 0;
while (!-e $ENV{STOP}) { print "a $n\n"; $n++; select(undef, undef, undef, 0.05) }
"#;

/// Four threads, beside those of the machine itself.
pub const JAVA: &str = r#"
import java.nio.file.*;
public class Count {
    static void count(String name, Path stop) {
        try {
            for (int n = 0; !Files.exists(stop); n++) {
                System.out.println(name + " " + n);
                Thread.sleep(50);
            }
        } catch (InterruptedException e) {
            throw new IllegalStateException(e);
        }
    }
    public static void main(String[] args) throws Exception {
        Path stop = Path.of(System.getenv("STOP"));
        Thread[] all = new Thread[4];
        for (int i = 0; i < all.length; i++) {
            String name = String.valueOf((char) ('a' + i));
            all[i] = new Thread(() -> count(name, stop));
            all[i].start();
        }
        for (Thread one : all) one.join();
    }
}
"#;

/// One process.
pub const R: &str = r#"
n <- 0L
while (!file.exists(Sys.getenv("STOP"))) {
    cat("a ", n, "\n", sep = ""); flush(stdout())
    n <- n + 1L
    Sys.sleep(0.05)
}
"#;

/// Has a file open for append and another one for reading and writing.
pub const FILES: &str = "
import os, time
log, data = open('files.log', 'a'), open('files.dat', 'w+')
n = 0
while not os.path.exists(os.environ['STOP']):
    log.write(f'{n}\\n')
    log.flush()
    os.fsync(log.fileno())
    data.seek(0)
    data.write(f'{n:08}')
    data.flush()
    data.seek(0)
    assert int(data.read()) == n
    print('a', n, flush=True)
    n += 1
    time.sleep(0.05)
";

/// Keeps a log, to which it only appends.
pub const LOGGED: &str = "
import os, time
log = open('logged.log', 'a')
n = 0
while not os.path.exists(os.environ['STOP']):
    log.write(f'{n}\\n')
    log.flush()
    os.fsync(log.fileno())
    print('a', n, flush=True)
    n += 1
    time.sleep(0.05)
";

/// Two processes with a connection between them.
pub const CONNECTED: &str = "
import os, socket, time
server = socket.create_server(('127.0.0.1', 0))
if os.fork() == 0:
    one, _ = server.accept()
    stream = one.makefile('rwb')
    for line in stream:
        stream.write(line)
        stream.flush()
    os._exit(0)
one = socket.create_connection(server.getsockname())
stream = one.makefile('rwb')
n = 0
while not os.path.exists(os.environ['STOP']):
    stream.write(b'%d\\n' % n)
    stream.flush()
    assert int(stream.readline()) == n
    print('a', n, flush=True)
    n += 1
    time.sleep(0.05)
stream.close()
one.close()
print('left', os.wait()[1], flush=True)
";

/// Asks, counts, and asks again.
pub const TYPED: &str = "
import os, time
assert all(os.isatty(fd) for fd in (0, 1, 2))
first = input('first? ')
open('typed.ready', 'w').close()
n = 0
while not os.path.exists(os.environ['STOP']):
    print('t', n)
    n += 1
    time.sleep(0.05)
print('got', first, input('second? '), os.get_terminal_size().columns == 90)
";

/// Serves whoever connects to it from another program.
pub const SERVER: &str = "
import os, socket, threading, time
server = socket.create_server(('', 7000))
def serve():
    stream = server.accept()[0].makefile('rwb')
    for line in stream:
        stream.write(line)
        stream.flush()
threading.Thread(target=serve, daemon=True).start()
n = 0
while not os.path.exists(os.environ['STOP']):
    print('a', n, flush=True)
    n += 1
    time.sleep(0.05)
print('served at', os.environ['XOS_CLUSTER_ADDRESS'], flush=True)
";

/// Is served by it, over one connection.
pub const CLIENT: &str = "
import os, socket, time
one = socket.create_connection((os.environ['SERVER'], 7000), 60)
one.settimeout(None)
stream = one.makefile('rwb')
n = 0
while not os.path.exists(os.environ['STOP']):
    stream.write(b'%d\\n' % n)
    stream.flush()
    assert int(stream.readline()) == n
    print('b', n, flush=True)
    n += 1
    time.sleep(0.05)
";

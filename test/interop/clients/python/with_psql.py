# psql as a client that runs a script and is asked what it says: only for hard moments.
import os
import signal
import subprocess
import sys

from driver import E

BASE = f"host={E['INTEROP_HOST']} port={E['INTEROP_PORT']} dbname=postgres sslmode=verify-full sslrootcert={E['INTEROP_CA']} gssencmode=disable connect_timeout=30"
END = "the end of an answer"


class Failed(Exception):
    pass


class Psql:
    def __init__(self, user):
        pair = f"sslcert={E['INTEROP_CERT']} sslkey={E['INTEROP_KEY']}" if user == "cert_user" else "sslcert=none sslkey=none"
        self.process = subprocess.Popen([E["PSQL"], "-XAtq", "-v", "VERBOSITY=verbose", f"{BASE} user={user} {pair}"], text=True,
                                        env=os.environ | {"PGPASSWORD": E["INTEROP_PASSWORD"] if user != "cert_user" else ""},
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.ask("select 1")

    def send(self, sql):
        try:
            self.process.stdin.write(f"{sql};\n\\echo {END}\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # read says what psql has said

    def read(self):
        said = []
        for line in self.process.stdout:
            if line.strip() == END:
                break
            if not line.startswith("LOCATION:"):
                said.append(line.strip())
        else:
            said.append(f"psql ends with status {self.process.wait()}")
        text = " ".join(said)
        if any(word in text for word in ("ERROR:", "FATAL:", "error:", "status", "closed")):
            raise Failed(text)
        return text

    def ask(self, sql):
        self.send(sql)
        return self.read()

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Moments:
    session = None

    def open(self, user):
        self.close()
        self.session = Psql(user)

    def attempt(self, user):
        other = Psql(user)
        try:
            return other.ask("select 'in'")
        finally:
            other.close()

    def ask(self):
        return self.session.ask("select 'in'")

    def sleep(self):
        self.session.send("select 'slept' from pg_sleep(120)")

    def cancel(self):
        self.session.process.send_signal(signal.SIGINT)  # Ctrl-C
        return self.session.read()

    def close(self):
        if self.session:
            try:
                self.session.close()
            except BrokenPipeError:
                pass
        self.session = None


def code(text):
    """The SQLSTATE that VERBOSITY=verbose shows."""
    for severity in ("ERROR:", "FATAL:"):
        _, found, rest = text.partition(severity)
        if found and rest.strip()[5:6] == ":":
            return rest.strip()[:5]
    return ""


def main():
    m = Moments()
    commands = {"open": m.open, "try": m.attempt, "ask": m.ask, "sleep": m.sleep, "cancel": m.cancel, "close": m.close}
    for line in sys.stdin:
        name, *user = line.split()
        try:
            print(f"ok\t\t{commands[name](*user) or ''}", flush=True)
        except Exception as e:
            text = str(e).replace(f"port {E['INTEROP_PORT']} ", "").split("failed: ", 1)[-1]
            print(f"error\t{code(text)}\t{text}", flush=True)


main()

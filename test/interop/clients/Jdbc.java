// PostgreSQL's JDBC driver as a client.

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.io.StringReader;
import java.io.StringWriter;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.SQLWarning;
import java.sql.Statement;
import java.util.HexFormat;
import java.util.Map;
import java.util.Properties;
import java.util.TreeMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;
import org.postgresql.copy.CopyIn;
import org.postgresql.copy.CopyOut;
import org.postgresql.largeobject.LargeObject;
import org.postgresql.largeobject.LargeObjectManager;

public final class Jdbc {
    interface Use { String of(Connection c) throws Exception; }

    interface Feature { String see() throws Exception; }

    static final class Unsupported extends Exception {
        Unsupported(String why) { super(why); }
    }

    static String env(String name) { return System.getenv("INTEROP_" + name); }

    static Connection connect(String... more) throws SQLException {
        Properties p = new Properties();
        p.setProperty("user", "app");
        p.setProperty("password", env("PASSWORD"));
        p.setProperty("sslmode", "verify-full");
        p.setProperty("sslrootcert", env("CA"));
        p.setProperty("gssEncMode", "disable");
        p.setProperty("connectTimeout", "90");
        for (int i = 0; i < more.length; i += 2) {
            p.setProperty(more[i], more[i + 1]);
        }
        return DriverManager.getConnection("jdbc:postgresql://" + env("HOST") + ":" + env("PORT") + "/postgres", p);
    }

    static Feature with(Use use, String... more) {
        return () -> {
            try (Connection c = connect(more)) {
                return use.of(c);
            }
        };
    }

    static String one(Connection c, String sql) throws SQLException {
        try (Statement s = c.createStatement(); ResultSet r = s.executeQuery(sql)) {
            r.next();
            return r.getString(1);
        }
    }

    static Use ask(String sql) { return c -> one(c, sql); }

    static Feature lacks(String why) {
        return () -> { throw new Unsupported(why); };
    }

    static String cancel(Connection c) throws Exception {
        int pid = c.unwrap(PGConnection.class).getBackendPID();
        try (Statement s = c.createStatement()) {
            Thread t = new Thread(() -> {
                try (Connection other = connect()) {
                    for (int i = 0; i < 200 && one(other, "select count(*) from pg_stat_activity where pid = " + pid + " and query like '%pg_sleep%'").equals("0"); i++) {
                        Thread.sleep(50);
                    }
                    s.cancel();
                } catch (Exception e) {
                    System.err.println(e);
                }
            });
            t.start();
            try {
                s.execute("select pg_sleep(120)");
                return "not cancelled";
            } catch (SQLException e) {
                return e.getSQLState();
            } finally {
                t.join();
            }
        }
    }

    static String notified(Connection c) throws Exception {
        try (Statement s = c.createStatement()) {
            s.execute("listen ch");
        }
        with(ask("select pg_notify('ch', 'word')")).see();
        PGNotification[] got = c.unwrap(PGConnection.class).getNotifications(90000);
        return got.length == 0 ? "nothing" : got[0].getName() + " " + got[0].getParameter();
    }

    static String largeObject(Connection c) throws Exception {
        c.setAutoCommit(false);
        LargeObjectManager m = c.unwrap(PGConnection.class).getLargeObjectAPI();
        long id = m.createLO();
        LargeObject o = m.open(id);
        o.write(new byte[3000000]);
        o.seek(0);
        int n = o.read(4000000).length;
        o.close();
        m.delete(id);
        c.commit();
        return String.valueOf(n);
    }

    static String large(Connection c) throws Exception {
        String got = one(c, "select repeat('x', " + env("SIZE") + ")");
        try (PreparedStatement p = c.prepareStatement("select length(?::text)")) {
            p.setString(1, got);
            ResultSet r = p.executeQuery();
            r.next();
            return got.length() + " down, " + r.getInt(1) + " up";
        }
    }

    static String prepared(Connection c, int times) throws Exception {
        StringBuilder b = new StringBuilder();
        try (PreparedStatement p = c.prepareStatement("select ?::int")) {
            for (int n = 0; n < times; n++) {
                p.setInt(1, n);
                ResultSet r = p.executeQuery();
                r.next();
                b.append(r.getInt(1)).append(' ');
            }
        }
        return b.toString().trim();
    }

    static String batch(Connection c) throws Exception {
        try (Statement s = c.createStatement()) {
            s.execute("create temp table b (n int)");
        }
        try (PreparedStatement p = c.prepareStatement("insert into b values (?)")) {
            for (int n = 0; n < 1000; n++) {
                p.setInt(1, n);
                p.addBatch();
            }
            return String.valueOf(p.executeBatch().length);
        }
    }

    static String copyIn(Connection c) throws Exception {
        try (Statement s = c.createStatement()) {
            s.execute("create temp table t (n int8)");
        }
        StringBuilder rows = new StringBuilder();
        for (int n = 0; n < 50000; n++) {
            rows.append(n).append('\n');
        }
        return String.valueOf(c.unwrap(PGConnection.class).getCopyAPI().copyIn("copy t from stdin", new StringReader(rows.toString())));
    }

    static String copyOut(Connection c) throws Exception {
        StringWriter w = new StringWriter();
        c.unwrap(PGConnection.class).getCopyAPI().copyOut("copy (select generate_series(1, 50000)) to stdout", w);
        return String.valueOf(w.getBuffer().length());
    }

    static String error(Connection c) {
        try {
            return one(c, "select 1/0");
        } catch (SQLException e) {
            return e.getSQLState() + " " + e.getMessage();
        }
    }

    static String notice(Connection c) throws Exception {
        try (Statement s = c.createStatement()) {
            s.execute("do $$ begin raise notice 'word'; end $$");
            SQLWarning w = s.getWarnings();
            return w == null ? "nothing" : w.getMessage();
        }
    }

    /** opened returns a session for a hard moment. */
    static Connection opened(String user) throws SQLException {
        return user.equals("cert_user")
            ? connect("user", user, "password", "", "sslcert", env("CERT"), "sslkey", env("KEY_DER"))
            : connect("user", user);
    }

    static void close(Connection c) {
        try {
            if (c != null) {
                c.close();
            }
        } catch (SQLException e) {
            // It has been lost before.
        }
    }

    /** mark says that a part of a long command is done, and waits until the next may begin. */
    static void mark(BufferedReader in) throws IOException {
        System.out.println("mark\t\t");
        in.readLine();
    }

    /** rowsOut copies rows out, with a mark after each so many bytes, and returns the SHA-256 of what has come. */
    static String rowsOut(Connection c, BufferedReader in, long rows, long part) throws Exception {
        MessageDigest digest = MessageDigest.getInstance("SHA-256");
        long done = 0;
        CopyOut copy = c.unwrap(PGConnection.class).getCopyAPI().copyOut(
            "copy (select n, repeat(md5(n::text), 31) from generate_series(1, " + rows + ") n) to stdout");
        for (byte[] row = copy.readFromCopy(); row != null; row = copy.readFromCopy()) {
            digest.update(row);
            if ((done + row.length) / part > done / part) {
                mark(in);
            }
            done += row.length;
        }
        return HexFormat.of().formatHex(digest.digest());
    }

    /** rowsIn copies the same rows into the table copied. */
    static String rowsIn(Connection c, BufferedReader in, long rows, long part) throws Exception {
        MessageDigest digest = MessageDigest.getInstance("MD5");
        long done = 0;
        CopyIn copy = c.unwrap(PGConnection.class).getCopyAPI().copyIn("copy copied from stdin");
        for (long n = 1; n <= rows; n++) {
            String number = String.valueOf(n);
            String sum = HexFormat.of().formatHex(digest.digest(number.getBytes(StandardCharsets.US_ASCII)));
            byte[] row = (number + "\t" + sum.repeat(31) + "\n").getBytes(StandardCharsets.US_ASCII);
            copy.writeToCopy(row, 0, row.length);
            if ((done + row.length) / part > done / part) {
                mark(in);
            }
            done += row.length;
        }
        return String.valueOf(copy.endCopy());
    }

    /**
     * moments obeys the commands that come on standard input, a line each, and answers each
     * with a line: ok or error, the SQLSTATE and the text.
     */
    static void moments() throws Exception {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        ExecutorService background = Executors.newSingleThreadExecutor();
        Connection session = null;
        Statement sleeping = null;
        Future<?> running = null;
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            String[] words = line.split(" ");
            String seen = "";
            try {
                switch (words[0]) {
                case "open" -> {
                    close(session);
                    session = opened(words[1]);
                }
                case "try" -> {
                    try (Connection c = opened(words[1])) {
                        seen = one(c, "select 'in'");
                    }
                }
                case "ask" -> seen = one(session, "select 'in'");
                case "copy" -> seen = String.valueOf(session.unwrap(PGConnection.class).getCopyAPI()
                    .copyOut("copy (select repeat('x', 8000) from generate_series(1, " + words[1] + ")) to stdout", OutputStream.nullOutputStream()));
                case "copy-out" -> seen = rowsOut(session, in, Long.parseLong(words[1]), Long.parseLong(words[2]));
                case "copy-in" -> seen = rowsIn(session, in, Long.parseLong(words[1]), Long.parseLong(words[2]));
                case "sleep" -> {
                    Statement s = session.createStatement();
                    sleeping = s;
                    running = background.submit(() -> s.execute("select 'slept' from pg_sleep(120)"));
                }
                case "cancel" -> {
                    sleeping.cancel();
                    running.get();
                    seen = "it was not cancelled";
                }
                case "close" -> {
                    close(session);
                    session = null;
                }
                default -> throw new IllegalArgumentException(line);
                }
                System.out.println("ok\t\t" + seen);
            } catch (Exception thrown) {
                Throwable e = thrown instanceof ExecutionException ? thrown.getCause() : thrown;
                String text = String.valueOf(e.getMessage());
                if (e.getCause() != null && !text.contains(String.valueOf(e.getCause().getMessage()))) {
                    text += " (" + e.getCause().getMessage() + ")";
                }
                String state = e instanceof SQLException s ? String.valueOf(s.getSQLState()) : "";
                System.out.println("error\t" + state + "\t" + text.replaceAll("\\s+", " ").replace(env("PORT"), "PORT"));
            }
        }
        System.exit(0);
    }

    public static void main(String[] args) throws Exception {
        if (args.length == 1 && args[0].equals("moments")) {
            moments();
        }
        Use user = ask("select current_user");
        Map<String, Feature> all = new TreeMap<>();
        all.put("sslrequest", with(user));
        all.put("direct", lacks("this release of the driver has no sslNegotiation"));
        for (String mode : new String[] {"disable", "allow", "prefer", "require", "verify-ca", "verify-full"}) {
            all.put("sslmode-" + mode, with(user, "sslmode", mode));
        }
        all.put("gssencmode", with(user, "gssEncMode", "prefer"));
        all.put("scram", with(user));
        all.put("channel-binding", lacks("this release of the driver cannot require it"));
        all.put("md5", with(user, "user", "md5_user"));
        all.put("clear", with(user, "user", "clear_user"));
        all.put("cert", with(user, "user", "cert_user", "password", "", "sslcert", env("CERT"), "sslkey", env("KEY_DER")));
        all.put("simple", with(ask("select 7"), "preferQueryMode", "simple"));
        all.put("extended", with(c -> prepared(c, 1)));
        all.put("prepared", with(c -> prepared(c, 5), "prepareThreshold", "1"));
        all.put("pipeline", with(Jdbc::batch));
        all.put("copy-in", with(Jdbc::copyIn));
        all.put("copy-out", with(Jdbc::copyOut));
        all.put("notify", with(Jdbc::notified));
        all.put("lo", with(Jdbc::largeObject));
        all.put("large", with(Jdbc::large));
        all.put("cancel", with(Jdbc::cancel));
        all.put("protocol-3.0", with(user, "protocolVersion", "3"));
        all.put("protocol-3.2", lacks("this release of the driver speaks 3.0"));
        all.put("protocol-latest", lacks("this release of the driver speaks 3.0"));
        all.put("error", with(Jdbc::error));
        all.put("notice", with(Jdbc::notice));
        all.put("idle", with(c -> {
            Thread.sleep(1000L * Integer.parseInt(env("IDLE")));
            return one(c, "select current_user");
        }));
        all.put("options", with(ask("show statement_timeout"), "options", "-c statement_timeout=7min"));
        all.put("application-name", with(ask("select length(current_setting('application_name')) || ' bytes of 70'"), "ApplicationName", "n".repeat(70)));
        all.put("client-encoding", lacks("the driver allows UTF8 only"));
        all.put("search-path", with(ask("show search_path"), "currentSchema", "interop,public"));

        System.out.println("version\tJDBC " + org.postgresql.Driver.getVersion() + ", Java " + System.getProperty("java.version"));
        for (String name : args) {
            String state = "ok";
            String seen;
            try {
                seen = all.get(name).see();
            } catch (Unsupported e) {
                state = "unsupported";
                seen = e.getMessage();
            } catch (Exception e) {
                state = "error";
                seen = String.valueOf(e.getMessage());
            }
            System.out.println(name + "\t" + state + "\t" + seen.replaceAll("\\s+", " ").replace(env("PORT"), "PORT"));
        }
    }
}

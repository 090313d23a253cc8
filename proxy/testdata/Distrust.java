// A client that asks for TLS as PostgreSQL's do and trusts what the JDK trusts.

import java.net.Socket;
import javax.net.ssl.SSLSocket;
import javax.net.ssl.SSLSocketFactory;

public final class Distrust {
    public static void main(String[] args) throws Exception {
        Socket plain = new Socket(args[0], Integer.parseInt(args[1]));
        plain.getOutputStream().write(new byte[] {0, 0, 0, 8, 4, (byte) 0xd2, 0x16, 0x2f});
        if (plain.getInputStream().read() != 'S') {
            throw new IllegalStateException("no TLS");
        }
        SSLSocket secure = (SSLSocket) ((SSLSocketFactory) SSLSocketFactory.getDefault()).createSocket(plain, "localhost", plain.getPort(), true);
        secure.startHandshake();
    }
}

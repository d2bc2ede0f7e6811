package socp.sample;

import static socp.sample.Connection.soon;
import static socp.sample.Signing.readNext;
import static socp.sample.Signing.readStatement;
import static socp.sample.Signing.require;

import com.google.protobuf.ByteString;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import socp.sample.Signing.Key;
import socp.sample.Signing.KeyChanged;
import socp.sample.Signing.User;
import socp.v1.Directory.DirectoryEntry;
import socp.v1.Directory.GetUserRequest;
import socp.v1.Directory.GetUserResponse;
import socp.v1.Statement.SignedKeyStatement;

/**
 * Which key is believed to be whose. Kept in memory here: "keep for ever, on disk if the program is
 * to be trusted tomorrow".
 */
final class Pins {
  private final Connection connection;
  private final Watch watch;
  private final Map<User, Key> pins = new ConcurrentHashMap<>();

  Pins(Connection connection, Watch watch) {
    this.connection = connection;
    this.watch = watch;
  }

  /** A user's key from the view or by GetUser, in agreement with the pin. */
  Key keyOf(User user, ByteString wanted) throws Exception {
    Key pin = pins.get(user);
    DirectoryEntry entry = watch.view().get(user);
    Key found = pin;
    if (entry != null && (pin == null || !pin.hash().equals(entry.getKeyStatementSha256()))) {
      ByteString hash = entry.getKeyStatementSha256();
      found = readStatement(entry.getKeyStatement(), user, hash);
      compare(user, pin, found);
    }
    boolean newer = pin != null && Long.compareUnsigned(found.number(), pin.number()) > 0;
    if (found == null || newer || (wanted != null && !wanted.equals(found.fingerprint()))) {
      found = ask(user, pin);
    }
    synchronized (pins) {
      compare(user, pins.get(user), found);
      pins.put(user, found); // trust on first use
    }
    return found;
  }

  /** The key in force, by the user's home, after it refused the pinned one: "follow the chain". */
  Key askAgain(User user) throws Exception {
    Key key = ask(user, pins.get(user));
    pins.put(user, key);
    return key;
  }

  /** "A lower number, or the pinned number with another key: refuse loudly." */
  private static void compare(User user, Key pin, Key found) throws KeyChanged {
    if (pin != null
        && (Long.compareUnsigned(found.number(), pin.number()) < 0
            || (found.number() == pin.number()
                && !found.fingerprint().equals(pin.fingerprint())))) {
      throw new KeyChanged(user);
    }
  }

  /** Checks the whole chain, and "requires that the pinned number and fingerprint are in it". */
  private Key ask(User user, Key pin) throws Exception {
    GetUserRequest request =
        GetUserRequest.newBuilder().setUser(user.name() + "@" + user.home()).build();
    GetUserResponse answer =
        connection.persistently(t -> soon(connection.directory(t)).getUser(request), true);
    require(
        answer.getUser().startsWith(user.name() + "@") && answer.getServerId().equals(user.home()),
        "the answer is about another user");
    Key key = null;
    boolean leads = pin == null;
    for (SignedKeyStatement signed : answer.getKeyStatementsList()) {
      key = key == null ? readStatement(signed, user, null) : readNext(key, signed, user, null);
      leads |=
          pin != null
              && key.number() == pin.number()
              && key.fingerprint().equals(pin.fingerprint());
    }
    require(
        key != null && key.number() == answer.getKeyStatementsCount(), "a chain from 1 is wanted");
    if (!leads) {
      throw new KeyChanged(user);
    }
    return key;
  }
}

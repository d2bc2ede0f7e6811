package socp.sample;

import static socp.sample.Connection.errorInfo;
import static socp.sample.Connection.reason;
import static socp.sample.Connection.soon;
import static socp.sample.Signing.require;
import static socp.sample.Signing.sha256;

import com.google.protobuf.ByteString;
import io.grpc.StatusException;
import io.grpc.stub.BlockingClientCall;
import java.io.File;
import java.io.IOException;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.KeyPair;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.Callable;
import java.util.concurrent.ConcurrentHashMap;
import socp.sample.Sealing.Content;
import socp.sample.Sealing.Opened;
import socp.sample.Signing.Key;
import socp.sample.Signing.KeyChanged;
import socp.sample.Signing.User;
import socp.v1.Directory.DirectoryEntry;
import socp.v1.Directory.RemovalReason;
import socp.v1.File.FileManifest;
import socp.v1.Message.AcknowledgeMessagesRequest;
import socp.v1.Message.AttachRequest;
import socp.v1.Message.AttachResponse;
import socp.v1.Message.GetChannelKeyRequest;
import socp.v1.Message.MessageHeader;
import socp.v1.Message.MessageStatement;
import socp.v1.Message.Outcome;
import socp.v1.Message.OutcomeKind;
import socp.v1.Message.ReceiptKind;
import socp.v1.Message.ReceivedOutcome;
import socp.v1.Message.ReceivedPost;
import socp.v1.Message.SealedMessage;
import socp.v1.Message.SendMessageRequest;
import socp.v1.Message.SignedOutcome;

/**
 * A client of SOCP: a live directory of everybody on every server, and end-to-end encrypted
 * messages. Written from docs/PROTOCOL.md, which the comments quote. {@link Connection} keeps the
 * way to the server, {@link Watch} the directory, {@link Channel} makes posts, {@link Transfer}
 * brings and fetches files, and {@link Device} is how far the inbox and the channel were read;
 * {@link Signing}, {@link Sealing}, {@link Inbox} and {@link Chunks} are what the golden vectors test.
 *
 * <pre>{@code
 * Device device = new Device(Path.of("alice.device"));
 * File ca = new File("a/ca.pem");
 * ReceiptKind receipts = ReceiptKind.RECEIPT_KIND_DELIVERED;
 * Client client =
 *     new Client("127.0.0.1:7443", serverId, ca, "alice", key, device, receipts, events);
 * client.start();
 * client.tell(new User("bob", homeId), "hello bob");
 * client.sendFile(new User("bob", homeId), Path.of("report.pdf"));
 * client.all("good morning, everybody");
 * client.close();
 * }</pre>
 *
 * <p>{@code ./build}, then {@code ./start} with the options of interop/README.md, runs {@link
 * Exchange}.
 */
public final class Client implements AutoCloseable {
  /**
   * What happens. The calls come from the client's two threads, one for the directory and one for
   * messages, and hold up the stream: what takes time, {@link #tell} too, belongs on another
   * thread.
   */
  public interface Events {
    /** A user came online, or is part of the first state. */
    default void added(DirectoryEntry entry) {}

    /** A user stays online with another content. */
    default void updated(DirectoryEntry entry) {}

    /** A user is not shown any more. */
    default void removed(DirectoryEntry entry, RemovalReason reason) {}

    /** A message or a post that opened. */
    default void received(Opened message) {}

    /** That these messages to a user were delivered or read, by the user's word. */
    default void receipt(User from, ReceiptKind kind, List<String> ids) {}

    /** What became of a message that was queued. */
    default void settled(Settled settled) {}

    /** Messages are gone from the inbox that this device has not had. */
    default void missed(long count) {}

    /** Posts are gone from the channel's log that this device has not had: so many at most. */
    default void postsMissed(long count) {}

    /** A message that did not open. Never tell the sender why. */
    default void unreadable(Exception why) {}

    /** A user's key is not the pinned one: nothing is sent to it, nothing opened from it. */
    default void keyChanged(KeyChanged why) {}

    /** A stream ended and will be opened again after a pause. */
    default void disturbed(String stream, String reason) {}

    /** This client stays offline: it was detached or replaced elsewhere, or must not go on. */
    default void stopped(String reason) {}
  }

  /**
   * What became of a message that was queued: signed by the recipient's home or, if it expired, by
   * one's own.
   */
  public record Settled(String messageId, User to, Outcome outcome) {}

  private static final int ACKNOWLEDGE_EVERY = 64; // attaching again says it, too

  private final User me;
  private final KeyPair own;
  private final Events events;
  final Connection connection;
  private final Watch watch;
  private final Device device;
  private final Transfer transfer;
  private final Inbox inbox;
  private final Channel channel;
  private final Receipts receipts;
  private final Pins pins;
  // By message id the hash of what was sent and is queued at the own home.
  private final Map<String, ByteString> queued = new ConcurrentHashMap<>();
  private int unacknowledged;

  /**
   * The device is {@code new Device(null)} where nothing is to be kept. Such receipts are given to
   * those who ask, and asked for; none if {@code RECEIPT_KIND_UNSPECIFIED}.
   */
  public Client(
      String server,
      String serverId,
      File ca,
      String name,
      KeyPair own,
      Device device,
      ReceiptKind receipts,
      Events events)
      throws IOException {
    this.me = new User(name, serverId);
    this.own = own;
    this.events = events;
    this.connection = new Connection(server, ca, me, own, events);
    this.watch = new Watch(connection, events);
    this.device = device;
    this.transfer = new Transfer(connection);
    this.pins = new Pins(connection, watch);
    this.inbox = new Inbox(me, own, pins::keyOf, this::channelKey);
    this.receipts = new Receipts(receipts, (to, receipt) -> tell(to, Content.of(receipt)));
    this.channel = new Channel(connection, watch, pins::keyOf, events);
  }

  /** Registers where that is not done yet, and goes online. */
  public void start() throws Exception {
    connection.register();
    connection.run("watch", watch::once);
    connection.run("attach", this::attachOnce);
  }

  /** Whoever is online now. */
  public Map<User, DirectoryEntry> view() {
    return Map.copyOf(watch.view());
  }

  /** How often the watch went on after a token. */
  public int resumed() {
    return watch.resumed.get();
  }

  /** How often a token was too old, or of another start of the server. */
  public int startedOver() {
    return watch.startedOver.get();
  }

  /** How often the server sent a digest that is not that of the view. */
  public int mismatched() {
    return watch.mismatched.get();
  }

  /** Goes offline at once, ends the session and closes the connection. */
  @Override
  public void close() {
    connection.close();
  }

  // Messages and posts.

  private String attachOnce(String token, Runnable well) throws Exception {
    AttachRequest request =
        AttachRequest.newBuilder()
            .setCursor(device.cursor())
            .setChannelCursor(device.channelCursor())
            .setDeviceId(device.id())
            .build();
    BlockingClientCall<?, AttachResponse> call = connection.messages(token).attach(request);
    try {
      for (AttachResponse event = call.read(); event != null; event = call.read()) {
        switch (event.getEventCase()) {
          case ATTACHED -> {
            well.run();
            if (device.channelCursor().isEmpty()) {
              device.keepChannel(event.getAttached().getNewestChannelCursor());
            }
          }
          case MESSAGE -> {
            SealedMessage sealed = event.getMessage().getMessage();
            deliver(() -> inbox.open(sealed));
          }
          case POST -> {
            ReceivedPost post = event.getPost();
            deliver(() -> inbox.open(post));
            device.keepChannel(event.getCursor()); // it was dealt with, whatever it was
          }
          case OUTCOME -> settle(event.getOutcome());
          case GAP -> events.missed(event.getGap().getMissed());
          case CHANNEL_GAP -> events.postsMissed(event.getChannelGap().getMissed());
          default -> {} // "ignore an event of no kind that you know"
        }
        if (!event.hasPost() && !event.getCursor().isEmpty()) {
          dealtWith(event.getCursor());
        }
      }
      return null; // OK: "this session was detached or logged out, perhaps elsewhere: stay offline"
    } catch (StatusException e) {
      if (reason(e).equals("CURSOR_UNKNOWN")) {
        // The home lost its disk: all of the inbox, without what was seen.
        String field = errorInfo(e).map(i -> i.getMetadataOrDefault("field", "")).orElse("");
        if (field.equals("channel_cursor")) {
          device.keepChannel("");
        } else {
          device.keep("");
        }
      }
      throw e;
    } finally {
      call.cancel("done with this stream", null);
    }
  }

  private ByteString channelKey(GetChannelKeyRequest wanted) throws Exception {
    return connection
        .persistently(t -> soon(connection.messages(t)).getChannelKey(wanted), true)
        .getWrappedChannelKey();
  }

  private void deliver(Callable<Opened> opening) {
    try {
      Opened opened = opening.call();
      if (opened != null && opened.receipt() != null) {
        List<String> ids = receipts.answered(opened.sender(), opened.receipt());
        events.receipt(opened.sender(), opened.receipt().getKind(), ids);
      } else if (opened != null) {
        events.received(opened);
        receipts.give(opened);
      }
    } catch (KeyChanged e) {
      events.keyChanged(e);
    } catch (Exception e) {
      events.unreadable(e);
    }
  }

  private void settle(ReceivedOutcome received) {
    try {
      // Of an earlier run's message the hash is not known: the signature and the id are all then.
      String id = received.getMessageId();
      Outcome outcome = Sealing.readSettled(received, me.home(), queued.get(id));
      queued.remove(id);
      User to = new User(received.getRecipient(), received.getRecipientHomeId());
      events.settled(new Settled(id, to, outcome));
    } catch (Exception e) {
      events.unreadable(e);
    }
  }

  private void dealtWith(String cursor) throws Exception {
    device.keep(cursor);
    if (++unacknowledged == ACKNOWLEDGE_EVERY) {
      unacknowledged = 0;
      AcknowledgeMessagesRequest request =
          AcknowledgeMessagesRequest.newBuilder().setCursor(cursor).build();
      connection.persistently(
          t -> soon(connection.messages(t)).acknowledgeMessages(request), true);
    }
  }

  /**
   * Sends a text to a user. Returns what was signed: HANDED_OVER and STORED by the user's home; or
   * QUEUED by the own one, and what becomes of it is told as {@link Events#settled}.
   */
  public OutcomeKind tell(User to, String text) throws Exception {
    return tell(to, new Content(text, null, null, receipts.wanted()));
  }

  /** Sends a file: first its bytes to the own home, then the message that tells of it. */
  public OutcomeKind sendFile(User to, Path path) throws Exception {
    FileManifest file = transfer.upload(to, path);
    return tell(to, new Content(Transfer.text(file), file, null, false));
  }

  /** Fetches a file of {@code limit} bytes at most into a folder, and checks it. */
  public Path receiveFile(FileManifest file, Path folder, long limit) throws Exception {
    return transfer.download(file, folder, limit);
  }

  private OutcomeKind tell(User to, Content content) throws Exception {
    try {
      return send(to, seal(to, pins.keyOf(to, null), content));
    } catch (StatusException e) {
      if (!reason(e).equals("RECIPIENT_KEY_CHANGED")) {
        throw e;
      }
      return send(to, seal(to, pins.askAgain(to), content)); // follow the chain, seal anew
    }
  }

  private SealedMessage seal(User to, Key key, Content content)
      throws GeneralSecurityException {
    return Sealing.seal(me, own, to, key, content, "socp.v1.MessageStatement");
  }

  /** Sends a sealed message, in retries "byte for byte": it is delivered once. */
  OutcomeKind send(User to, SealedMessage sealed) throws Exception {
    SendMessageRequest request = SendMessageRequest.newBuilder().setMessage(sealed).build();
    ByteString said = MessageStatement.parseFrom(sealed.getStatement()).getHeader();
    MessageHeader header = MessageHeader.parseFrom(said);
    if (header.getWantsReceipts()) {
      receipts.ask(header.getMessageId(), to);
    }
    SignedOutcome signed =
        connection
            .persistently(t -> soon(connection.messages(t)).sendMessage(request), true)
            .getOutcome();
    ByteString hash = sha256(sealed.getStatement());
    OutcomeKind kind = Sealing.readOutcome(signed, to.home(), me.home(), hash).getKind();
    if (kind == OutcomeKind.OUTCOME_KIND_QUEUED) {
      queued.put(header.getMessageId(), hash);
    } else {
      boolean kept =
          kind == OutcomeKind.OUTCOME_KIND_HANDED_OVER || kind == OutcomeKind.OUTCOME_KIND_STORED;
      require(kept, "not in the inbox");
    }
    return kind;
  }

  /** What became of a post: how many users got it, and the homes of which nobody knows. */
  public record Posted(long recipients, Set<String> silentHomes) {}

  /** Posts a text to everybody who is online. */
  public Posted all(String text) throws Exception {
    return channel.all(text);
  }
}

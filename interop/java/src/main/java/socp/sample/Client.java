package socp.sample;

import com.google.protobuf.ByteString;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.ErrorInfo;
import io.grpc.CallOptions;
import io.grpc.ClientCall;
import io.grpc.Grpc;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusException;
import io.grpc.TlsChannelCredentials;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.AbstractStub;
import io.grpc.stub.BlockingClientCall;
import io.grpc.stub.ClientCalls;
import io.grpc.stub.MetadataUtils;
import java.io.File;
import java.io.IOException;
import java.security.GeneralSecurityException;
import java.security.KeyPair;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.Callable;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicInteger;
import javax.net.ssl.SSLSession;
import socp.sample.Documents.ChannelKey;
import socp.sample.Documents.Inbox;
import socp.sample.Documents.Key;
import socp.sample.Documents.KeyChanged;
import socp.sample.Documents.Opened;
import socp.sample.Documents.User;
import socp.v1.Account.CreateChallengeRequest;
import socp.v1.Account.GetServerInfoRequest;
import socp.v1.Account.GetServerInfoResponse;
import socp.v1.Account.LogInRequest;
import socp.v1.Account.LogOutRequest;
import socp.v1.Account.RegisterRequest;
import socp.v1.AccountServiceGrpc;
import socp.v1.AccountServiceGrpc.AccountServiceBlockingV2Stub;
import socp.v1.Directory.DirectoryChange;
import socp.v1.Directory.DirectoryEntry;
import socp.v1.Directory.GetUserRequest;
import socp.v1.Directory.GetUserResponse;
import socp.v1.Directory.RemovalReason;
import socp.v1.Directory.RemovedEntry;
import socp.v1.Directory.WatchDirectoryRequest;
import socp.v1.Directory.WatchDirectoryResponse;
import socp.v1.DirectoryServiceGrpc;
import socp.v1.DirectoryServiceGrpc.DirectoryServiceBlockingV2Stub;
import socp.v1.Message.AttachRequest;
import socp.v1.Message.AttachResponse;
import socp.v1.Message.DetachRequest;
import socp.v1.Message.Outcome;
import socp.v1.Message.OutcomeKind;
import socp.v1.Message.OutcomeStatement;
import socp.v1.Message.PostToChannelRequest;
import socp.v1.Message.PostToChannelResponse;
import socp.v1.Message.ReceivedPost;
import socp.v1.Message.SealedMessage;
import socp.v1.Message.SealedPost;
import socp.v1.Message.SendMessageRequest;
import socp.v1.Message.SignedOutcome;
import socp.v1.MessageServiceGrpc;
import socp.v1.MessageServiceGrpc.MessageServiceBlockingV2Stub;
import socp.v1.Statement.CertificateStatement;
import socp.v1.Statement.LoginStatement;
import socp.v1.Statement.SignedKeyStatement;

/**
 * A client of SOCP: a live directory of everybody on every server, and end-to-end encrypted
 * messages. Written from docs/PROTOCOL.md, which the comments quote; what is signed and sealed is
 * in {@link Documents}.
 *
 * <pre>{@code
 * Client client = new Client("127.0.0.1:7443", serverId, new File("a/ca.pem"), "alice", key, events);
 * client.start();
 * client.tell(new User("bob", homeId), "hello bob");
 * client.all("good morning, everybody");
 * client.close();
 * }</pre>
 *
 * <p>{@code ./build && ./start --help} shows how the program beside it is run.
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

    /** A message that did not open. Never tell the sender why. */
    default void unreadable(Exception why) {}

    /** A user's key is not the pinned one: nothing is sent to it, nothing opened from it. */
    default void keyChanged(KeyChanged why) {}

    /** A stream ended and will be opened again after a pause. */
    default void disturbed(String stream, String reason) {}

    /** This client stays offline: it was detached or replaced elsewhere, or must not go on. */
    default void stopped(String reason) {}
  }

  private static final long CALL_SECONDS = 15;
  private static final long SILENCE_SECONDS = 35;
  private static final long RETRY_SECONDS = 60;
  private static final int WRAPS_MAX = 4096;

  private final User me;
  private final KeyPair own;
  private final Events events;
  final ManagedChannel channel;
  private final AccountServiceBlockingV2Stub accounts;
  private final Inbox inbox;
  // Kept in memory here. "Pins: keep for ever, on disk if the program is to be trusted tomorrow."
  private final Map<User, Key> pins = new ConcurrentHashMap<>();
  private final Object channelLock = new Object();
  private ChannelKey channelKey = new ChannelKey();
  private final List<Thread> threads = new ArrayList<>();
  private String token = ""; // secret; guarded by this
  volatile LogInRequest lastLogin;
  private volatile boolean closed;

  // Written by the watch alone; the others look.
  private volatile Map<User, DirectoryEntry> view = new ConcurrentHashMap<>();
  private String resumeToken = "";
  private long revision;

  /** How often the watch went on after a token. */
  public final AtomicInteger resumed = new AtomicInteger();

  /** How often a token was too old, or of another start of the server. */
  public final AtomicInteger startedOver = new AtomicInteger();

  /** How often the server sent a digest that is not that of the view. */
  public final AtomicInteger mismatched = new AtomicInteger();

  public Client(String server, String serverId, File ca, String name, KeyPair own, Events events)
      throws IOException {
    this.me = new User(name, serverId);
    this.own = own;
    this.events = events;
    this.inbox = new Inbox(me, own, this::keyOf);
    // Trusts this one CA, which signs for nothing but this server, and checks the host name. The
    // pings are the shortest that this library allows; the server sends its own every 2 s.
    this.channel =
        Grpc.newChannelBuilder(server, TlsChannelCredentials.newBuilder().trustManager(ca).build())
            .keepAliveTime(10, TimeUnit.SECONDS)
            .keepAliveTimeout(5, TimeUnit.SECONDS)
            .keepAliveWithoutCalls(true)
            .build();
    this.accounts = AccountServiceGrpc.newBlockingV2Stub(channel);
  }

  /** Registers where that is not done yet, and goes online. */
  public void start() throws Exception {
    identify();
    // "Registering again with the same key is answered like the first time."
    RegisterRequest request =
        RegisterRequest.newBuilder().setKeyStatement(Documents.firstStatement(me, own)).build();
    persistently(t -> soon(accounts).register(request), false);
    run("watch", this::watchOnce);
    run("attach", this::attachOnce);
  }

  /** Whoever is online now. */
  public Map<User, DirectoryEntry> view() {
    return Map.copyOf(view);
  }

  /** Goes offline at once, ends the session and closes the connection. */
  @Override
  public void close() {
    closed = true;
    try {
      persistently(t -> soon(messages(t)).detach(DetachRequest.getDefaultInstance()), true);
      persistently(
          t -> soon(bearing(t, accounts)).logOut(LogOutRequest.getDefaultInstance()), true);
    } catch (Exception e) {
      // The server ends the session by itself.
    }
    threads.forEach(Thread::interrupt);
    channel.shutdownNow();
  }

  // Who the server is, and who the user is.

  /** "Call GetServerInfo before anything else and check all of this." */
  private void identify() throws Exception {
    ClientCall<GetServerInfoRequest, GetServerInfoResponse> call =
        channel.newCall(
            AccountServiceGrpc.getGetServerInfoMethod(),
            CallOptions.DEFAULT.withDeadlineAfter(CALL_SECONDS, TimeUnit.SECONDS));
    GetServerInfoResponse info;
    try {
      info = ClientCalls.blockingUnaryCall(call, GetServerInfoRequest.getDefaultInstance());
    } catch (io.grpc.StatusRuntimeException e) {
      throw new StatusException(e.getStatus(), e.getTrailers());
    }
    CertificateStatement said = CertificateStatement.parseFrom(info.getCertificateStatement());
    SSLSession tls = call.getAttributes().get(Grpc.TRANSPORT_ATTR_SSL_SESSION);
    byte[] certificateKey = tls.getPeerCertificates()[0].getPublicKey().getEncoded();
    Documents.verify(
        Documents.serverKey(info.getIdentityKey(), me.home()),
        "socp.v1.CertificateStatement",
        info.getCertificateStatement(),
        info.getCertificateSignature());
    Documents.require(
        info.getServerId().equals(me.home())
            && said.getServerId().equals(me.home())
            && said.getCertificateKeySha256()
                .equals(Documents.sha256(ByteString.copyFrom(certificateKey))),
        "the certificate of another server");
    Documents.require(
        info.getProtocolVersion().startsWith("1."), "another major version of the protocol");
  }

  /**
   * A good token; logs in if there is none. The server's identity is checked before each login; on
   * connections that the library makes in between, it rests on the CA file.
   */
  private synchronized String token() throws Exception {
    if (token.isEmpty()) {
      identify();
      CreateChallengeRequest name = CreateChallengeRequest.newBuilder().setUser(me.name()).build();
      ByteString statement =
          LoginStatement.newBuilder()
              .setServerId(me.home()) // "from the pin, never from an answer"
              .setUser(me.name())
              .setNonce(soon(accounts).createChallenge(name).getNonce())
              .build()
              .toByteString();
      lastLogin =
          LogInRequest.newBuilder()
              .setStatement(statement)
              .setSignature(Documents.sign(own.getPrivate(), "socp.v1.LoginStatement", statement))
              .setDevice("java sample")
              .build();
      token = soon(accounts).logIn(lastLogin).getToken();
    }
    return token;
  }

  /** Forgets a token that was refused, unless another thread has a new one already. */
  private synchronized void forget(String refused) {
    if (token.equals(refused)) {
      token = "";
    }
  }

  private static <S extends AbstractStub<S>> S soon(S stub) {
    return stub.withDeadlineAfter(CALL_SECONDS, TimeUnit.SECONDS);
  }

  private static <S extends AbstractStub<S>> S bearing(String token, S stub) {
    Metadata headers = new Metadata();
    headers.put(
        Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER), "Bearer " + token);
    return stub.withInterceptors(MetadataUtils.newAttachHeadersInterceptor(headers));
  }

  private DirectoryServiceBlockingV2Stub directory(String token) {
    return bearing(token, DirectoryServiceGrpc.newBlockingV2Stub(channel));
  }

  private MessageServiceBlockingV2Stub messages(String token) {
    return bearing(token, MessageServiceGrpc.newBlockingV2Stub(channel));
  }

  // Errors and pauses.

  /** "Decide by the reason, never by the text"; empty where the status is not the server's. */
  static Optional<ErrorInfo> errorInfo(StatusException e) {
    com.google.rpc.Status status = StatusProto.fromThrowable(e); // grpc-status-details-bin
    if (status != null) {
      for (com.google.protobuf.Any detail : status.getDetailsList()) {
        try {
          if (detail.is(ErrorInfo.class)
              && detail.unpack(ErrorInfo.class).getDomain().equals("socp")) {
            return Optional.of(detail.unpack(ErrorInfo.class));
          }
        } catch (InvalidProtocolBufferException malformed) {
          return Optional.empty();
        }
      }
    }
    return Optional.empty();
  }

  static String reason(StatusException e) {
    return errorInfo(e).map(ErrorInfo::getReason).orElse("");
  }

  /** Whether a pause may help: nobody knows what became of the call, or the server is busy. */
  private static boolean passing(StatusException e) {
    return switch (reason(e)) {
      case "TIMEOUT",
          "HOME_UNREACHABLE",
          "DRAINING",
          "TOO_MANY",
          "SERVER_FAILED",
          "NONCE_EXPIRED" ->
          true;
      case "" ->
          switch (e.getStatus().getCode()) {
            case UNAVAILABLE, CANCELLED, DEADLINE_EXCEEDED, UNKNOWN, INTERNAL -> true;
            default -> false;
          };
      default -> e.getStatus().getCode() == Status.Code.UNAVAILABLE;
    };
  }

  /** "Before the n-th attempt wait a random time between 0 and min(5 s, 100 ms * 2^n)." */
  private void pause(int n) throws InterruptedException {
    Thread.sleep(ThreadLocalRandom.current().nextLong(Math.min(5000, 100L << Math.min(n, 10))));
    // The library has a pause of its own, up to two minutes, in which every call fails at once.
    channel.resetConnectBackoff();
  }

  private interface Call<T> {
    T with(String token) throws Exception;
  }

  /** Makes a call, logs in again where the token is not good any more, and repeats what may be. */
  private <T> T persistently(Call<T> call, boolean authorised) throws Exception {
    long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(closed ? 2 : RETRY_SECONDS);
    boolean again = false;
    for (int n = 0; ; n++) {
      String used = "";
      try {
        used = authorised ? token() : "";
        return call.with(used);
      } catch (StatusException e) {
        boolean expired = authorised && reason(e).equals("TOKEN_INVALID") && !again;
        if (expired) {
          forget(used);
          again = true;
        } else if (!passing(e) || System.nanoTime() > end) {
          throw e;
        } else {
          pause(n);
        }
      }
    }
  }

  /** A stream: reads until it ends, and says by {@code well} that pauses may be short again. */
  private interface Stream {
    /** Returns the reason to open it again, or null to leave it. */
    String read(String token, Runnable well) throws Exception;
  }

  /** Keeps a stream open on a thread of its own, whatever happens to the connection. */
  private void run(String name, Stream stream) {
    Thread thread = new Thread(() -> keep(name, stream), "socp-" + name);
    thread.setDaemon(true);
    threads.add(thread);
    thread.start();
  }

  private void keep(String name, Stream stream) {
    int[] attempts = {0};
    while (!closed) {
      String used = "";
      String why;
      try {
        pause(attempts[0]++);
        used = token();
        why = stream.read(used, () -> attempts[0] = 0);
        if (why == null && !closed) {
          events.stopped("DETACHED");
        }
        if (why == null) {
          return;
        }
      } catch (StatusException e) {
        why = reason(e).isEmpty() ? e.getStatus().getCode().name() : reason(e);
        switch (why) {
          case "TOKEN_INVALID" -> forget(used);
          case "REPLACED", "USER_DISABLED", "USER_NOT_FOUND", "WRONG_SERVER" -> {
            events.stopped(why);
            return;
          }
          default -> {}
        }
      } catch (Exception e) {
        if (!closed) {
          events.stopped(e.toString()); // another server, or one that breaks the protocol
        }
        return;
      }
      if (!closed) {
        events.disturbed(name, why);
      }
    }
  }

  // The watch.

  private static User userOf(DirectoryEntry entry) {
    return new User(entry.getName(), entry.getServerId());
  }

  private String watchOnce(String token, Runnable well) throws Exception {
    boolean resuming = !resumeToken.isEmpty();
    // Without a token the old view stays in sight until the end mark of the new one.
    Map<User, DirectoryEntry> staged = resuming ? null : new ConcurrentHashMap<>();
    long seen = revision;
    WatchDirectoryRequest request =
        WatchDirectoryRequest.newBuilder().setResumeToken(resumeToken).build();
    BlockingClientCall<?, WatchDirectoryResponse> call = directory(token).watchDirectory(request);
    try {
      for (boolean first = true; ; first = false) {
        // "Silence: the stream is dead, whatever the transport says."
        WatchDirectoryResponse message = call.read(SILENCE_SECONDS, TimeUnit.SECONDS);
        if (message == null) {
          return "ENDED";
        }
        if (first && resuming) {
          resumed.incrementAndGet();
          well.run();
        }
        for (DirectoryChange change : message.getChangesList()) {
          if (Long.compareUnsigned(change.getRevision(), seen) < 0) {
            return startOver("REVISION_WENT_BACK");
          }
          seen = change.getRevision();
          apply(change, staged);
        }
        if (message.hasEndMark()) {
          if (staged == null || message.getEndMark().getEntries() != staged.size()) {
            return startOver("ENTRIES_MISSING");
          }
          replaceView(staged);
          staged = null;
          seen = message.getEndMark().getRevision();
          if (differs(message.getEndMark().getDigest())) {
            return startOver("DIGEST_DIFFERS");
          }
          well.run();
        }
        if (message.hasBookmark()) {
          seen = message.getBookmark().getRevision();
          if (differs(message.getBookmark().getDigest())) {
            return startOver("DIGEST_DIFFERS");
          }
        }
        if (!message.getResumeToken().isEmpty()) {
          resumeToken = message.getResumeToken();
          revision = seen;
        }
      }
    } catch (TimeoutException e) {
      return "SILENCE";
    } catch (StatusException e) {
      String given = errorInfo(e).map(i -> i.getMetadataOrDefault("resume_token", "")).orElse("");
      switch (reason(e)) {
        case "REVISION_COMPACTED", "RESUME_TOKEN_INVALID" -> {
          startedOver.incrementAndGet();
          startOver("");
        }
        case "WATCHER_TOO_SLOW", "DRAINING", "TOKEN_INVALID" -> {
          if (!given.isEmpty() && staged == null) {
            resumeToken = given;
            revision = seen;
          } else if (reason(e).equals("WATCHER_TOO_SLOW")) {
            startOver("");
          }
        }
        default -> {}
      }
      throw e;
    } finally {
      call.cancel("done with this watch", null);
    }
  }

  private String startOver(String why) {
    resumeToken = "";
    revision = 0;
    return why;
  }

  private void apply(DirectoryChange change, Map<User, DirectoryEntry> staged) {
    if (change.hasRemoved()) {
      RemovedEntry removed = change.getRemoved();
      User user = new User(removed.getName(), removed.getServerId());
      DirectoryEntry old = (staged != null ? staged : view).remove(user);
      if (staged == null && old != null) {
        events.removed(old, removed.getReason());
      }
    } else if (change.hasAdded() || change.hasUpdated()) {
      DirectoryEntry entry = change.hasAdded() ? change.getAdded() : change.getUpdated();
      DirectoryEntry old = (staged != null ? staged : view).put(userOf(entry), entry);
      if (staged == null) {
        tell(old, entry);
      }
    }
  }

  private void tell(DirectoryEntry old, DirectoryEntry entry) {
    if (old == null) {
      events.added(entry);
    } else if (!old.equals(entry)) {
      events.updated(entry);
    }
  }

  /** "Whoever is not in the new state is gone": only differences are told. */
  private void replaceView(Map<User, DirectoryEntry> staged) {
    Map<User, DirectoryEntry> old = view;
    view = staged;
    old.forEach(
        (user, entry) -> {
          if (!staged.containsKey(user)) {
            events.removed(entry, RemovalReason.REMOVAL_REASON_UNSPECIFIED);
          }
        });
    staged.forEach((user, entry) -> tell(old.get(user), entry));
  }

  private boolean differs(ByteString digest) {
    boolean differs = !digest.isEmpty() && !digest.equals(Documents.digest(view.values()));
    if (differs) {
      mismatched.incrementAndGet();
    }
    return differs;
  }

  // Keys.

  /** A user's key from the view or by GetUser, in agreement with the pin. */
  private Key keyOf(User user, ByteString wanted) throws Exception {
    Key pin = pins.get(user);
    DirectoryEntry entry = view.get(user);
    Key found = pin;
    if (entry != null && (pin == null || !pin.hash().equals(entry.getKeyStatementSha256()))) {
      ByteString hash = entry.getKeyStatementSha256();
      found = Documents.readStatement(entry.getKeyStatement(), user, hash);
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
    GetUserResponse answer = persistently(t -> soon(directory(t)).getUser(request), true);
    Documents.require(
        answer.getUser().startsWith(user.name() + "@") && answer.getServerId().equals(user.home()),
        "the answer is about another user");
    Key key = null;
    boolean leads = pin == null;
    for (SignedKeyStatement signed : answer.getKeyStatementsList()) {
      key =
          key == null
              ? Documents.readStatement(signed, user, null)
              : Documents.readNext(key, signed, user, null);
      leads |=
          pin != null
              && key.number() == pin.number()
              && key.fingerprint().equals(pin.fingerprint());
    }
    Documents.require(
        key != null && key.number() == answer.getKeyStatementsCount(), "a chain from 1 is wanted");
    if (!leads) {
      throw new KeyChanged(user);
    }
    return key;
  }

  // Messages and posts.

  private String attachOnce(String token, Runnable well) throws Exception {
    BlockingClientCall<?, AttachResponse> call =
        messages(token).attach(AttachRequest.getDefaultInstance());
    try {
      for (AttachResponse event = call.read(); event != null; event = call.read()) {
        switch (event.getEventCase()) {
          case ATTACHED -> well.run();
          case MESSAGE -> {
            SealedMessage sealed = event.getMessage().getMessage();
            deliver(() -> inbox.open(sealed));
          }
          case POST -> {
            ReceivedPost post = event.getPost();
            deliver(() -> inbox.open(post));
          }
          default -> {} // "ignore an event of no kind that you know"
        }
      }
      return null; // OK: "this session was detached or logged out, perhaps elsewhere: stay offline"
    } finally {
      call.cancel("done with this stream", null);
    }
  }

  private void deliver(Callable<Opened> opening) {
    try {
      Opened opened = opening.call();
      if (opened != null) {
        events.received(opened);
      }
    } catch (KeyChanged e) {
      events.keyChanged(e);
    } catch (Exception e) {
      events.unreadable(e);
    }
  }

  /**
   * Sends a text to a user. Returns when the user's home said, and signed, that it was handed over.
   */
  public void tell(User to, String text) throws Exception {
    try {
      send(to, seal(to, keyOf(to, null), text));
    } catch (StatusException e) {
      if (!reason(e).equals("RECIPIENT_KEY_CHANGED")) {
        throw e;
      }
      Key key = ask(to, pins.get(to)); // follow the chain, seal anew
      pins.put(to, key);
      send(to, seal(to, key, text));
    }
  }

  private SealedMessage seal(User to, Key key, String text) throws GeneralSecurityException {
    return Documents.seal(me, own, to, key, text, "socp.v1.MessageStatement");
  }

  /** Sends a sealed message, in retries "byte for byte": it is delivered once. */
  void send(User to, SealedMessage sealed) throws Exception {
    SendMessageRequest request = SendMessageRequest.newBuilder().setMessage(sealed).build();
    SignedOutcome signed =
        persistently(t -> soon(messages(t)).sendMessage(request), true).getOutcome();
    Outcome outcome = Documents.readOutcome(signed, to.home(), sealed.getStatement());
    Documents.require(outcome.getKind() == OutcomeKind.OUTCOME_KIND_HANDED_OVER, "not handed over");
  }

  /** What became of a post: how many users got it, and the homes of which nobody knows. */
  public record Posted(long recipients, Set<String> silentHomes) {}

  /** Posts a text to everybody who is online. */
  public Posted all(String text) throws Exception {
    synchronized (channelLock) {
      Map<User, DirectoryEntry> members = new HashMap<>(view);
      members.remove(me);
      // "When the statement hash of a member who was given it is another now": a new channel key.
      channelKey.holders.forEach(
          (user, given) -> {
            DirectoryEntry now = members.getOrDefault(user, given);
            if (!now.getKeyStatementSha256().equals(given.getKeyStatementSha256())) {
              channelKey = new ChannelKey();
            }
          });
      Map<User, DirectoryEntry> wrapped = new HashMap<>();
      PostToChannelRequest.Builder request = PostToChannelRequest.newBuilder();
      for (Map.Entry<User, DirectoryEntry> member : members.entrySet()) {
        // Each change puts another entry into the view, and its user lacks the key again.
        boolean holds = channelKey.holders.get(member.getKey()) == member.getValue();
        if (!holds && wrapped.size() < WRAPS_MAX) {
          try {
            Key key = keyOf(member.getKey(), null);
            request.addWraps(channelKey.wrapFor(member.getKey(), key));
            wrapped.put(member.getKey(), member.getValue());
          } catch (KeyChanged e) {
            events.keyChanged(e); // gets none
          }
        }
      }
      SealedPost sealed = channelKey.seal(me, own, text);
      return post(request.setPost(sealed).build(), members.keySet(), wrapped);
    }
  }

  private Posted post(
      PostToChannelRequest request, Set<User> members, Map<User, DirectoryEntry> wrapped)
      throws Exception {
    ByteString statement = request.getPost().getStatement();
    Map<String, Outcome> outcomes = new HashMap<>(); // each home counts once
    for (int n = 0; ; n++) {
      PostToChannelResponse answer =
          persistently(t -> soon(messages(t)).postToChannel(request), true);
      for (SignedOutcome signed : answer.getOutcomesList()) {
        String home = OutcomeStatement.parseFrom(signed.getStatement()).getHomeId();
        if (members.stream().anyMatch(member -> member.home().equals(home))) {
          outcomes.put(home, Documents.readOutcome(signed, home, statement));
        }
      }
      Set<String> silent = new HashSet<>(answer.getSilentHomeIdsList());
      silent.removeAll(outcomes.keySet());
      if (silent.isEmpty() || n == 2) {
        outcomes.values().removeIf(o -> o.getKind() != OutcomeKind.OUTCOME_KIND_HANDED_OVER);
        wrapped.forEach(
            (user, entry) -> {
              // "A wrap counts only if the entry did not change while the post was on its way."
              if (outcomes.containsKey(user.home()) && view.get(user) == entry) {
                channelKey.holders.put(user, entry);
              }
            });
        long recipients = outcomes.values().stream().mapToLong(Outcome::getRecipients).sum();
        return new Posted(recipients, silent);
      }
      pause(n); // and the same bytes once more, for the homes that were silent
    }
  }
}

package socp.sample;

import static socp.sample.Signing.checkServer;
import static socp.sample.Signing.firstStatement;
import static socp.sample.Signing.sign;

import com.google.protobuf.Any;
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
import io.grpc.StatusRuntimeException;
import io.grpc.TlsChannelCredentials;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.AbstractStub;
import io.grpc.stub.ClientCalls;
import io.grpc.stub.MetadataUtils;
import java.io.File;
import java.io.IOException;
import java.security.KeyPair;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import java.util.function.LongSupplier;
import javax.net.ssl.SSLSession;
import socp.sample.Signing.User;
import socp.v1.Account.CreateChallengeRequest;
import socp.v1.Account.GetServerInfoRequest;
import socp.v1.Account.GetServerInfoResponse;
import socp.v1.Account.LogInRequest;
import socp.v1.Account.LogOutRequest;
import socp.v1.Account.RegisterRequest;
import socp.v1.AccountServiceGrpc;
import socp.v1.AccountServiceGrpc.AccountServiceBlockingV2Stub;
import socp.v1.DirectoryServiceGrpc;
import socp.v1.DirectoryServiceGrpc.DirectoryServiceBlockingV2Stub;
import socp.v1.FileServiceGrpc;
import socp.v1.FileServiceGrpc.FileServiceBlockingV2Stub;
import socp.v1.Message.DetachRequest;
import socp.v1.MessageServiceGrpc;
import socp.v1.MessageServiceGrpc.MessageServiceBlockingV2Stub;
import socp.v1.Statement.LoginStatement;

/** The way to one server: who it is, who the user is to it, and what is done when it is lost. */
final class Connection implements AutoCloseable {
  private static final long CALL_SECONDS = 15;
  private static final long RETRY_SECONDS = 60;
  private static final Set<String> AT_ONCE =
      Set.of(
          "TOKEN_INVALID",
          "REVISION_COMPACTED",
          "RESUME_TOKEN_INVALID",
          "WATCHER_TOO_SLOW",
          "CURSOR_UNKNOWN");

  final User me;
  final KeyPair own;
  final ManagedChannel channel;
  private final Client.Events events;
  private final AccountServiceBlockingV2Stub accounts;
  private final List<Thread> threads = new ArrayList<>();
  private String token = ""; // secret; guarded by this
  volatile LogInRequest lastLogin;
  private volatile boolean closed;

  Connection(String server, File ca, User me, KeyPair own, Client.Events events)
      throws IOException {
    this.me = me;
    this.own = own;
    this.events = events;
    // Trusts this one CA, which signs for nothing but this server, and checks the host name. The
    // pings are the shortest that this library allows; the server sends its own every 2 s.
    channel =
        Grpc.newChannelBuilder(server, TlsChannelCredentials.newBuilder().trustManager(ca).build())
            .keepAliveTime(10, TimeUnit.SECONDS)
            .keepAliveTimeout(5, TimeUnit.SECONDS)
            .keepAliveWithoutCalls(true)
            .build();
    accounts = AccountServiceGrpc.newBlockingV2Stub(channel);
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
    try {
      for (Thread thread : threads) {
        // What was received is noted before the stream's thread ends; the watch has no end of its own.
        if (thread.getName().equals("socp-attach") && thread != Thread.currentThread()) {
          thread.join(2000);
        }
        thread.interrupt();
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
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
    } catch (StatusRuntimeException e) {
      throw new StatusException(e.getStatus(), e.getTrailers());
    }
    SSLSession tls = call.getAttributes().get(Grpc.TRANSPORT_ATTR_SSL_SESSION);
    byte[] certificateKey = tls.getPeerCertificates()[0].getPublicKey().getEncoded();
    checkServer(info, me.home(), ByteString.copyFrom(certificateKey));
  }

  /** Checks the server and registers the user there; does no harm where that is done already. */
  void register() throws Exception {
    RegisterRequest request =
        RegisterRequest.newBuilder().setKeyStatement(firstStatement(me, own)).build();
    persistently(
        t -> {
          identify();
          // "Registering again with the same key is answered like the first time."
          return soon(accounts).register(request);
        },
        false);
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
              .setSignature(sign(own.getPrivate(), "socp.v1.LoginStatement", statement))
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

  static <S extends AbstractStub<S>> S soon(S stub) {
    return stub.withDeadlineAfter(CALL_SECONDS, TimeUnit.SECONDS);
  }

  private static <S extends AbstractStub<S>> S bearing(String token, S stub) {
    Metadata headers = new Metadata();
    headers.put(
        Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER), "Bearer " + token);
    return stub.withInterceptors(MetadataUtils.newAttachHeadersInterceptor(headers));
  }

  DirectoryServiceBlockingV2Stub directory(String token) {
    return bearing(token, DirectoryServiceGrpc.newBlockingV2Stub(channel));
  }

  MessageServiceBlockingV2Stub messages(String token) {
    return bearing(token, MessageServiceGrpc.newBlockingV2Stub(channel));
  }

  FileServiceBlockingV2Stub files(String token) {
    return bearing(token, FileServiceGrpc.newBlockingV2Stub(channel));
  }

  // Errors and pauses.

  /** "Decide by the reason, never by the text"; empty where the status is not the server's. */
  static Optional<ErrorInfo> errorInfo(StatusException e) {
    com.google.rpc.Status status = StatusProto.fromThrowable(e); // grpc-status-details-bin
    if (status != null) {
      for (Any detail : status.getDetailsList()) {
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
          "REPLACED",
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
  void pause(int n) throws InterruptedException {
    Thread.sleep(ThreadLocalRandom.current().nextLong(Math.min(5000, 100L << Math.min(n, 10))));
    // The library has a pause of its own, up to two minutes, in which every call fails at once.
    channel.resetConnectBackoff();
  }

  interface Call<T> {
    T with(String token) throws Exception;
  }

  /** Makes a call, logs in again where the token is not good any more, and repeats what may be. */
  <T> T persistently(Call<T> call, boolean authorised) throws Exception {
    return persistently(call, authorised, () -> 0);
  }

  /** The same for what takes long: the time runs anew whenever it got further. */
  <T> void persistently(Call<T> call, LongSupplier progress) throws Exception {
    persistently(call, true, progress);
  }

  private <T> T persistently(Call<T> call, boolean authorised, LongSupplier progress)
      throws Exception {
    long patience = TimeUnit.SECONDS.toNanos(closed ? 2 : RETRY_SECONDS);
    long end = System.nanoTime() + patience;
    long reached = progress.getAsLong();
    boolean again = false;
    for (int n = 0; ; n++) {
      String used = "";
      try {
        used = authorised ? token() : "";
        return call.with(used);
      } catch (StatusException e) {
        if (progress.getAsLong() != reached) {
          reached = progress.getAsLong();
          end = System.nanoTime() + patience;
          again = false;
          n = 0;
        }
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
  interface Stream {
    /** Returns the reason to open it again, or null to leave it. */
    String read(String token, Runnable well) throws Exception;
  }

  /** Keeps a stream open on a thread of its own, whatever happens to the connection. */
  void run(String name, Stream stream) {
    Thread thread = new Thread(() -> keep(name, stream), "socp-" + name);
    thread.setDaemon(true);
    threads.add(thread);
    thread.start();
  }

  private void keep(String name, Stream stream) {
    int[] attempts = {0};
    boolean atOnce = false;
    while (!closed) {
      String used = "";
      String why;
      try {
        if (!atOnce) {
          pause(attempts[0]++);
        }
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
          case "REPLACED", "USER_DISABLED", "USER_MOVED", "USER_NOT_FOUND", "WRONG_SERVER" -> {
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
      // The server is there and said what to do, so there is nothing to wait for; but only once.
      atOnce = !atOnce && AT_ONCE.contains(why);
      if (!closed) {
        events.disturbed(name, why);
      }
    }
  }
}

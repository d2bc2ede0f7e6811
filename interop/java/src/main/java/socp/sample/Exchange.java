package socp.sample;

import com.google.protobuf.ByteString;
import io.grpc.StatusException;
import java.io.File;
import java.nio.file.Path;
import java.security.KeyPair;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.logging.Level;
import java.util.logging.Logger;
import socp.sample.Sealing.Opened;
import socp.sample.Signing.Key;
import socp.sample.Signing.KeyChanged;
import socp.sample.Signing.User;
import socp.v1.AccountServiceGrpc;
import socp.v1.Directory.DirectoryEntry;
import socp.v1.Directory.ListUsersRequest;
import socp.v1.Directory.RemovalReason;
import socp.v1.DirectoryServiceGrpc;
import socp.v1.File.FileManifest;
import socp.v1.Message.OutcomeKind;
import socp.v1.Message.ReceiptKind;

/** What interop/README.md asks of a sample: answers a partner, and exits with 0 if all was well. */
public final class Exchange implements Client.Events {
  private static final List<String> OPTIONS =
      List.of(
          "server", "server-id", "ca", "name", "key", "files", "receipts", "partner", "seconds");
  private static final List<String> OPTIONAL = List.of("key", "files", "receipts");
  private static final Map<String, ReceiptKind> RECEIPTS =
      Map.of(
          "none", ReceiptKind.RECEIPT_KIND_UNSPECIFIED,
          "delivered", ReceiptKind.RECEIPT_KIND_DELIVERED,
          "read", ReceiptKind.RECEIPT_KIND_READ);
  private static final Logger GRPC = Logger.getLogger("io.grpc");

  private final CompletableFuture<Integer> status = new CompletableFuture<>();
  // One thing after the other, and not on the threads that read the streams.
  private final ExecutorService work = Executors.newSingleThreadExecutor();
  private final String tellNonce = Signing.hex(Signing.random(16));
  private final String allNonce = Signing.hex(Signing.random(16));
  private final String partnerName;
  private final User me;
  private final KeyPair key;
  private final Client client;
  private final Path folder; // for files of the partner's; null to fetch none
  private User partner;
  private final List<Opened> early = new ArrayList<>(); // from before it was known who that is
  private final List<String> later = new ArrayList<>(); // to be said once the partner is away
  private final List<String> settled = new ArrayList<>();
  private final List<String> numbered = new ArrayList<>(); // of posts `number`
  private final Set<String> delivered = new HashSet<>(); // own messages, by receipts
  private final Set<String> read = new HashSet<>();
  private int queued;
  private boolean tellReturned;
  private boolean allReturned;
  private boolean tellOpened;
  private boolean allOpened;

  private Exchange(Map<String, String> options) throws Exception {
    partnerName = options.get("partner");
    me = new User(options.get("name"), options.get("server-id"));
    key = options.containsKey("key") ? KeyFile.readOrMake(Path.of(options.get("key"))) : KeyFile.make();
    File ca = new File(options.get("ca"));
    String keyFile = options.get("key");
    Device device = new Device(keyFile == null ? null : Path.of(keyFile + ".device"));
    folder = options.containsKey("files") ? Path.of(options.get("files")) : null;
    ReceiptKind receipts = RECEIPTS.get(options.getOrDefault("receipts", "none"));
    Signing.require(receipts != null, "--receipts is delivered or read");
    String server = options.get("server");
    client = new Client(server, me.home(), ca, me.name(), key, device, receipts, this);
  }

  public static void main(String[] arguments) throws Exception {
    GRPC.setLevel(Level.WARNING);
    Map<String, String> options = new HashMap<>(Map.of("seconds", "120"));
    for (int i = 0; i < arguments.length; i += 2) {
      String name = arguments[i].startsWith("--") ? arguments[i].substring(2) : "";
      if (!OPTIONS.contains(name) || i + 1 == arguments.length) {
        System.err.println("options, each with a value: --" + String.join(" --", OPTIONS));
        System.exit(2);
      }
      options.put(name, arguments[i + 1]);
    }
    for (String name : OPTIONS) {
      if (!OPTIONAL.contains(name) && !options.containsKey(name)) {
        System.err.println("--" + name + " is missing");
        System.exit(2);
      }
    }
    long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(Long.parseLong(options.get("seconds")));
    CompletableFuture<Integer> status =
        CompletableFuture.supplyAsync(
                () -> {
                  try {
                    Exchange exchange = new Exchange(options);
                    exchange.client.start();
                    exchange.say("online as " + options.get("name"));
                    return exchange.status;
                  } catch (Exception e) {
                    System.err.println("cannot go online: " + e);
                    return CompletableFuture.completedFuture(1);
                  }
                })
            .thenCompose(s -> s);
    try {
      System.exit(status.get(end - System.nanoTime(), TimeUnit.NANOSECONDS));
    } catch (TimeoutException e) {
      System.err.println("gave up after " + options.get("seconds") + " s");
      System.exit(1);
    }
  }

  // What happens.

  /** Prints a line; text of others must not reach a terminal with control characters. */
  private void say(String line) {
    System.out.println(line.replaceAll("\\p{Cntrl}", "?"));
  }

  @Override
  public void added(DirectoryEntry entry) {
    say("added " + entry.getUser());
    if (entry.getUser().equals(partnerName)) {
      work.execute(() -> first(new User(entry.getName(), entry.getServerId())));
    }
  }

  @Override
  public void updated(DirectoryEntry entry) {
    say("updated " + entry.getUser());
  }

  @Override
  public void removed(DirectoryEntry entry, RemovalReason reason) {
    say("removed " + entry.getUser() + " " + reason);
    if (entry.getUser().equals(partnerName)) {
      work.execute(this::sayLater);
    }
  }

  @Override
  public void receipt(User from, ReceiptKind kind, List<String> ids) {
    say(from.name() + ": " + kind + " " + ids);
    work.execute(() -> (kind == ReceiptKind.RECEIPT_KIND_READ ? read : delivered).addAll(ids));
  }

  @Override
  public void settled(Client.Settled settled) {
    String kind = settled.outcome().getKind().name();
    say("settled: " + settled.messageId() + " to " + settled.to().name() + ": " + kind);
    work.execute(() -> this.settled.add(kind));
  }

  @Override
  public void missed(long count) {
    say(count + " messages are gone that this device has not had");
  }

  @Override
  public void postsMissed(long count) {
    say("up to " + count + " posts are gone that this device has not had");
  }

  @Override
  public void unreadable(Exception why) {
    say("unreadable: " + why);
  }

  @Override
  public void keyChanged(KeyChanged why) {
    say("KEY CHANGED: " + why.getMessage());
  }

  @Override
  public void disturbed(String stream, String reason) {
    say(stream + " disturbed: " + reason);
  }

  @Override
  public void stopped(String reason) {
    say("stopped: " + reason);
    status.complete(1);
  }

  @Override
  public void received(Opened message) {
    work.execute(() -> answer(message));
  }

  // The exchange.

  private void first(User user) {
    if (partner == null) {
      partner = user;
      tell("ping " + tellNonce);
      try {
        Client.Posted posted = client.all("ping " + allNonce);
        say("posted to " + posted.recipients() + ", silent " + posted.silentHomes());
      } catch (Exception e) {
        say("post failed: " + e);
      }
      List.copyOf(early).forEach(this::answer);
      early.clear();
    }
  }

  private void tell(String text) {
    for (int n = 0; n < 10; n++) {
      try {
        OutcomeKind kind = client.tell(partner, text);
        if (kind == OutcomeKind.OUTCOME_KIND_QUEUED) {
          queued++;
        }
        say("told " + text + ": " + kind);
        return;
      } catch (StatusException e) {
        // Refused, so nothing was kept. The link between the servers may be down for a moment.
        say("not told: " + Connection.reason(e) + " " + e.getStatus().getCode());
      } catch (Exception e) {
        say("not told: " + e);
        return;
      }
      try {
        Thread.sleep(1000);
      } catch (InterruptedException e) {
        return;
      }
    }
  }

  private void sayLater() {
    for (String argument : later) {
      tell("later " + argument);
      try {
        client.all("accepted " + argument);
      } catch (Exception e) {
        say("post failed: " + e);
      }
    }
    later.clear();
  }

  /** Saves a file, and sends it back. */
  private void echo(FileManifest file) {
    say("a file: " + Chunks.safeName(file.getName()) + ", " + file.getBytes() + " bytes");
    if (folder == null) {
      return;
    }
    try {
      Path path = client.receiveFile(file, folder, 1L << 31);
      say("saved " + path);
      say("sent " + path + ": " + client.sendFile(partner, path));
    } catch (Exception e) {
      say("not exchanged: " + e);
    }
  }

  private void answer(Opened message) {
    String[] words = message.text().split(" ", 2);
    String argument = words.length == 2 ? words[1] : "";
    say((message.post() == null ? "message: " : "post: ") + message.text());
    if (message.post() != null && words[0].equals("number")) {
      numbered.add(argument);
      return;
    }
    if (partner == null) {
      DirectoryEntry entry = client.view().get(message.sender());
      if (entry != null && entry.getUser().equals(partnerName)) {
        first(message.sender());
      } else {
        early.add(message); // the inbox may come before the directory
        return;
      }
    }
    if (!message.sender().equals(partner)) {
      return;
    }
    if (message.file() != null) {
      echo(message.file());
      return;
    }
    switch (words[0]) {
      case "ping" -> {
        tellOpened |= message.post() == null;
        allOpened |= message.post() != null;
        tell("pong " + argument);
      }
      case "pong" -> {
        tellReturned |= argument.equals(tellNonce);
        allReturned |= argument.equals(allNonce);
      }
      case "view" -> tell("view " + view());
      case "later" -> later.add(argument);
      case "outcomes" -> {
        tell("outcomes {\"queued\":%d,\"settled\":%s}".formatted(queued, list(settled)));
      }
      case "posts" -> tell("posts " + list(numbered));
      case "receipts" ->
          tell("receipts {\"delivered\":%d,\"read\":%d}".formatted(delivered.size(), read.size()));
      case "refusals" -> tell("refusals " + refusals());
      case "bye" -> {
        client.close();
        boolean well = tellReturned && allReturned && tellOpened && allOpened;
        say("bye: " + (well ? "all nonces came" : "nonces are missing"));
        status.complete(well ? 0 : 1);
      }
      default -> {}
    }
  }

  private static String list(List<String> texts) {
    return texts.isEmpty() ? "[]" : "[\"" + String.join("\",\"", texts) + "\"]";
  }

  private String view() {
    Map<User, DirectoryEntry> view = client.view();
    return "{\"digest\":\"%s\",\"users\":%d,\"resumed\":%d,\"started_over\":%d,\"mismatched\":%d}"
        .formatted(
            Signing.hex(Signing.digest(view.values())),
            view.size(),
            client.resumed(),
            client.startedOver(),
            client.mismatched());
  }

  private interface Call {
    void run() throws Exception;
  }

  private static String refused(Call call) {
    try {
      call.run();
      return "";
    } catch (StatusException e) {
      return Connection.reason(e);
    } catch (Exception e) {
      return e.getClass().getSimpleName();
    }
  }

  private String refusals() {
    Key mine = new Key(1, Signing.fingerprint(key), key.getPublic(), ByteString.EMPTY);
    return "{\"login_replayed\":\"%s\",\"wrong_signature\":\"%s\",\"unknown_user\":\"%s\",\"no_token\":\"%s\"}"
        .formatted(
            refused(
                () ->
                    AccountServiceGrpc.newBlockingV2Stub(client.connection.channel)
                        .logIn(client.connection.lastLogin)),
            refused(() -> send(partner, "socp.v1.PostStatement", mine)),
            refused(() -> send(new User("nobody", me.home()), "socp.v1.MessageStatement", mine)),
            refused(
                () ->
                    DirectoryServiceGrpc.newBlockingV2Stub(client.connection.channel)
                        .listUsers(ListUsersRequest.getDefaultInstance())));
  }

  private void send(User to, String label, Key sealedTo) throws Exception {
    client.send(to, Sealing.seal(me, key, to, sealedTo, Sealing.Content.of("refuse this"), label));
  }
}

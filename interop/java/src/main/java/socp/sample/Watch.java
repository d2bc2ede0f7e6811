package socp.sample;

import static socp.sample.Connection.errorInfo;
import static socp.sample.Connection.reason;
import static socp.sample.Signing.digest;

import com.google.protobuf.ByteString;
import io.grpc.StatusException;
import io.grpc.stub.BlockingClientCall;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicInteger;
import socp.sample.Signing.User;
import socp.v1.Directory.DirectoryChange;
import socp.v1.Directory.DirectoryEntry;
import socp.v1.Directory.RemovalReason;
import socp.v1.Directory.RemovedEntry;
import socp.v1.Directory.WatchDirectoryRequest;
import socp.v1.Directory.WatchDirectoryResponse;

/** The live directory: the view, how it is kept, and how a lost stream is resumed. */
final class Watch {
  private static final long SILENCE_SECONDS = 35;

  private final Connection connection;
  private final Client.Events events;
  // Written by the watch's thread alone; the others look.
  private volatile Map<User, DirectoryEntry> view = new ConcurrentHashMap<>();
  private String resumeToken = ""; // belongs to the view, and is useless without it
  private long revision;

  final AtomicInteger resumed = new AtomicInteger();
  final AtomicInteger startedOver = new AtomicInteger();
  final AtomicInteger mismatched = new AtomicInteger();

  Watch(Connection connection, Client.Events events) {
    this.connection = connection;
    this.events = events;
  }

  Map<User, DirectoryEntry> view() {
    return view;
  }

  private static User userOf(DirectoryEntry entry) {
    return new User(entry.getName(), entry.getServerId());
  }

  /** Reads one stream to its end; returns or throws why it ended. */
  String once(String token, Runnable well) throws Exception {
    boolean resuming = !resumeToken.isEmpty();
    // Without a token the old view stays in sight until the end mark of the new one.
    Map<User, DirectoryEntry> staged = resuming ? null : new ConcurrentHashMap<>();
    long seen = revision;
    WatchDirectoryRequest request =
        WatchDirectoryRequest.newBuilder().setResumeToken(resumeToken).build();
    BlockingClientCall<?, WatchDirectoryResponse> call =
        connection.directory(token).watchDirectory(request);
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
    boolean differs = !digest.isEmpty() && !digest.equals(digest(view.values()));
    if (differs) {
      mismatched.incrementAndGet();
    }
    return differs;
  }
}

package socp.sample;

import static socp.sample.Connection.soon;
import static socp.sample.Signing.sha256;

import com.google.protobuf.ByteString;
import io.grpc.StatusException;
import java.io.IOException;
import java.security.GeneralSecurityException;
import java.util.HashMap;
import java.util.HashSet;
import java.util.Map;
import java.util.Set;
import socp.sample.Inbox.Keys;
import socp.sample.Sealing.ChannelKey;
import socp.sample.Signing.Key;
import socp.sample.Signing.KeyChanged;
import socp.sample.Signing.User;
import socp.v1.Directory.DirectoryEntry;
import socp.v1.Message.Outcome;
import socp.v1.Message.OutcomeKind;
import socp.v1.Message.OutcomeStatement;
import socp.v1.Message.PostToChannelRequest;
import socp.v1.Message.PostToChannelResponse;
import socp.v1.Message.SealedPost;
import socp.v1.Message.SignedOutcome;

/** The own posts to the public channel: under which key, and who has it. */
final class Channel {
  private static final int WRAPS_MAX = 4096;
  private final Connection connection;
  private final Watch watch;
  private final Keys keys;
  private final Client.Events events;
  private ChannelKey channelKey = new ChannelKey();

  Channel(Connection connection, Watch watch, Keys keys, Client.Events events) {
    this.connection = connection;
    this.watch = watch;
    this.keys = keys;
    this.events = events;
  }

  /** Posts a text to everybody who is online. */
  synchronized Client.Posted all(String text) throws Exception {
    Map<User, DirectoryEntry> members = new HashMap<>(watch.view());
    members.remove(connection.me);
    // "When the statement hash of a member who was given it is another now": a new channel key.
    for (Map.Entry<User, ByteString> given : Map.copyOf(channelKey.given).entrySet()) {
      DirectoryEntry now = members.get(given.getKey());
      if (now != null && !now.getKeyStatementSha256().equals(given.getValue())) {
        channelKey = new ChannelKey();
      }
    }
    Map<User, DirectoryEntry> wrapped = new HashMap<>();
    PostToChannelRequest.Builder request = PostToChannelRequest.newBuilder();
    for (Map.Entry<User, DirectoryEntry> member : members.entrySet()) {
      // Each change puts another entry into the view, and its user lacks the key again.
      boolean holds = channelKey.holders.get(member.getKey()) == member.getValue();
      if (!holds && wrapped.size() < WRAPS_MAX) {
        try {
          Key key = keys.find(member.getKey(), null);
          request.addWraps(channelKey.wrapFor(member.getKey(), key));
          wrapped.put(member.getKey(), member.getValue());
          channelKey.given.put(member.getKey(), member.getValue().getKeyStatementSha256());
        } catch (StatusException | GeneralSecurityException | IOException e) {
          // Gets none; one member's bad statement must not keep the post from the others.
          if (e instanceof KeyChanged changed) {
            events.keyChanged(changed);
          }
        }
      }
    }
    SealedPost sealed = channelKey.seal(connection.me, connection.own, text);
    return post(request.setPost(sealed).build(), members.keySet(), wrapped);
  }

  private Client.Posted post(
      PostToChannelRequest request, Set<User> members, Map<User, DirectoryEntry> wrapped)
      throws Exception {
    ByteString hash = sha256(request.getPost().getStatement());
    Map<String, Outcome> outcomes = new HashMap<>(); // each home counts once
    for (int n = 0; ; n++) {
      PostToChannelResponse answer =
          connection.persistently(t -> soon(connection.messages(t)).postToChannel(request), true);
      for (SignedOutcome signed : answer.getOutcomesList()) {
        try {
          String home = OutcomeStatement.parseFrom(signed.getStatement()).getHomeId();
          if (members.stream().anyMatch(member -> member.home().equals(home))) {
            outcomes.put(home, Sealing.readOutcome(signed, home, home, hash));
          }
        } catch (GeneralSecurityException | IOException e) {
          // "Whatever does not check out is unknown."
        }
      }
      Set<String> silent = new HashSet<>(answer.getSilentHomeIdsList());
      silent.removeAll(outcomes.keySet());
      if (silent.isEmpty() || n == 2) {
        outcomes.values().removeIf(o -> o.getKind() != OutcomeKind.OUTCOME_KIND_HANDED_OVER);
        wrapped.forEach(
            (user, entry) -> {
              // "A wrap counts only if the entry did not change while the post was on its way." The
              // home does not say who got the post: its wraps count only if all its members did.
              Outcome outcome = outcomes.get(user.home());
              long there = members.stream().filter(m -> m.home().equals(user.home())).count();
              if (outcome != null
                  && outcome.getRecipients() >= there
                  && watch.view().get(user) == entry) {
                channelKey.holders.put(user, entry);
              }
            });
        long recipients = outcomes.values().stream().mapToLong(Outcome::getRecipients).sum();
        return new Client.Posted(recipients, silent);
      }
      connection.pause(n); // and the same bytes once more, for the homes that were silent
    }
  }
}

package socp.sample;

import static socp.sample.Sealing.UUID7;
import static socp.sample.Sealing.gcm;
import static socp.sample.Sealing.postKey;
import static socp.sample.Sealing.unwrap;
import static socp.sample.Signing.fingerprint;
import static socp.sample.Signing.label;
import static socp.sample.Signing.require;
import static socp.sample.Signing.sha256;
import static socp.sample.Signing.verify;

import com.google.protobuf.ByteString;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.KeyPair;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import javax.crypto.Cipher;
import socp.sample.Sealing.Opened;
import socp.sample.Signing.Key;
import socp.sample.Signing.User;
import socp.v1.File.FileManifest;
import socp.v1.Message.GetChannelKeyRequest;
import socp.v1.Message.MessageHeader;
import socp.v1.Message.MessageStatement;
import socp.v1.Message.PostHeader;
import socp.v1.Message.PostStatement;
import socp.v1.Message.Receipt;
import socp.v1.Message.ReceiptKind;
import socp.v1.Message.ReceivedPost;
import socp.v1.Message.SealedMessage;
import socp.v1.Message.SealedPost;

/** Opens what arrives, in the order that the protocol gives, and knows repeats. */
final class Inbox {
  /** Finds a user's key in the view or by GetUser, checked against the pin. */
  interface Keys {
    Key find(User user, ByteString fingerprint) throws Exception;
  }

  /** Asks the own home for a channel key that came before, wrapped; empty if it has none. */
  interface ChannelKeys {
    ByteString ask(GetChannelKeyRequest wanted) throws Exception;
  }

  private static final int STATEMENT_MAX = 67_584;
  private static final int REMEMBERED = 100_000;
  private static final int CHANNEL_KEYS = 64;
  private final User me;
  private final KeyPair own;
  private final Keys keys;
  private final ChannelKeys home;
  // Sender and id. A client that must know repeats after a restart keeps them on disk.
  private final Set<List<Object>> seen = Collections.newSetFromMap(newest(REMEMBERED));
  private final Map<User, Map<List<Object>, ByteString>> channelKeys = new LinkedHashMap<>();

  Inbox(User me, KeyPair own, Keys keys, ChannelKeys home) {
    this.me = me;
    this.own = own;
    this.keys = keys;
    this.home = home;
  }

  /** Opens a message; null for a repeat, which is dropped silently. */
  synchronized Opened open(SealedMessage sealed) throws Exception {
    require(sealed.getStatement().size() <= STATEMENT_MAX, "too large");
    require(sealed.getSignature().size() == 512, "signature of a wrong size");
    require(sealed.getWrappedKey().size() == 512, "wrapped key of a wrong size");
    MessageStatement said = MessageStatement.parseFrom(sealed.getStatement());
    MessageHeader header = MessageHeader.parseFrom(said.getHeader());
    User sender = new User(header.getSender(), header.getSenderHomeId());
    User recipient = new User(header.getRecipient(), header.getRecipientHomeId());
    checkForm(header.getSuite(), header.getMessageId(), sender, header.getSenderKeySha256());
    checkForm(1, header.getMessageId(), recipient, header.getRecipientKeySha256());
    checkForm(said.getNonce(), said.getKeyCommitment());
    if (seen.contains(List.of(sender, header.getMessageId()))) {
      return null;
    }
    require(
        recipient.equals(me) && header.getRecipientKeySha256().equals(fingerprint(own)),
        "for somebody else");
    Key key = senderKey(sender, header.getSenderKeySha256());
    verify(key.rsa(), "socp.v1.MessageStatement", sealed.getStatement(), sealed.getSignature());
    ByteString contentKey = unwrap(own, sealed.getWrappedKey());
    ByteString plain =
        decrypt(
            contentKey,
            said.getNonce(),
            said.getHeader(),
            said.getCiphertext(),
            said.getKeyCommitment());
    String text = utf8(plain);
    FileManifest file = openManifest(contentKey, said);
    Receipt receipt = openReceipt(contentKey, said);
    seen.add(List.of(sender, header.getMessageId())); // only now that it is known to be true
    ByteString hash = sha256(sealed.getStatement());
    String id = header.getMessageId();
    boolean wants = header.getWantsReceipts();
    return new Opened(
        sender, id, header.getTimeUnixMs(), hash, text, null, file, receipt, wants);
  }

  /** Opens a post; null for a repeat. */
  synchronized Opened open(ReceivedPost received) throws Exception {
    SealedPost sealed = received.getPost();
    require(sealed.getStatement().size() <= STATEMENT_MAX, "too large");
    require(sealed.getSignature().size() == 512, "signature of a wrong size");
    PostStatement said = PostStatement.parseFrom(sealed.getStatement());
    PostHeader header = PostHeader.parseFrom(said.getHeader());
    User sender = new User(header.getSender(), header.getSenderHomeId());
    checkForm(header.getSuite(), header.getMessageId(), sender, header.getSenderKeySha256());
    checkForm(said.getNonce(), said.getKeyCommitment());
    require(header.getChannel().equals("public"), "another channel");
    require(header.getKeyId().size() == 16 && header.getSalt().size() == 32, "wrong form");
    if (seen.contains(List.of(sender, header.getMessageId()))) {
      return null;
    }
    Key key = senderKey(sender, header.getSenderKeySha256());
    verify(key.rsa(), "socp.v1.PostStatement", sealed.getStatement(), sealed.getSignature());
    List<Object> which = List.of(header.getSenderKeySha256(), header.getKeyId());
    ByteString channelKey = kept(sender).get(which);
    ByteString plain = null;
    if (channelKey != null) {
      try {
        plain = openPost(channelKey, said, header);
      } catch (GeneralSecurityException e) {
        // The kept key does not open it; perhaps a wrap came along.
      }
    }
    if (plain == null) {
      // "Where there is none": the wrap, or what one's home has of an earlier one.
      ByteString wrapped = received.getWrappedChannelKey();
      channelKey = unwrap(own, wrapped.isEmpty() ? home.ask(wanted(header)) : wrapped);
      plain = openPost(channelKey, said, header);
    }
    String text = utf8(plain);
    kept(sender).put(which, channelKey);
    seen.add(List.of(sender, header.getMessageId()));
    ByteString hash = sha256(sealed.getStatement());
    String id = header.getMessageId();
    return new Opened(
        sender, id, header.getTimeUnixMs(), hash, text, header, null, null, false);
  }

  private static GetChannelKeyRequest wanted(PostHeader header) {
    return GetChannelKeyRequest.newBuilder()
        .setSender(header.getSender())
        .setSenderHomeId(header.getSenderHomeId())
        .setKeyId(header.getKeyId())
        .build();
  }

  /** What a message says that is a receipt; null if it is none. */
  private static Receipt openReceipt(ByteString key, MessageStatement said) throws Exception {
    ByteString nonce = said.getReceiptNonce();
    if (nonce.isEmpty() && said.getReceiptCiphertext().isEmpty()) {
      return null;
    }
    boolean alone = said.getFileNonce().isEmpty() && said.getFileCiphertext().isEmpty();
    require(nonce.size() == 12 && alone, "wrong form");
    ByteString about = label("socp.v1.Receipt").concat(said.getHeader());
    ByteString plain = gcm(Cipher.DECRYPT_MODE, key, nonce, about, said.getReceiptCiphertext());
    Receipt receipt = Receipt.parseFrom(plain);
    boolean known =
        receipt.getKind() == ReceiptKind.RECEIPT_KIND_DELIVERED
            || receipt.getKind() == ReceiptKind.RECEIPT_KIND_READ;
    int count = receipt.getMessageIdsCount();
    require(
        known
            && count >= 1
            && count <= 100
            && receipt.getMessageIdsList().stream().allMatch(id -> id.matches(UUID7)),
        "wrong form of a receipt");
    return receipt;
  }

  /** What a message says of the file that it brings; null if it brings none. */
  private static FileManifest openManifest(ByteString key, MessageStatement said)
      throws Exception {
    ByteString nonce = said.getFileNonce();
    if (nonce.isEmpty() && said.getFileCiphertext().isEmpty()) {
      return null;
    }
    require(nonce.size() == 12, "wrong form");
    ByteString about = Transfer.additionalData(said.getHeader());
    FileManifest file =
        FileManifest.parseFrom(
            gcm(Cipher.DECRYPT_MODE, key, nonce, about, said.getFileCiphertext()));
    require(
        file.getFileId().matches("[0-9a-f]{32}")
            && file.getHomeId().matches("[0-9a-f]{64}")
            && file.getNameBytes().size() <= 1024
            && file.getChunkBytes() == Chunks.CHUNK
            && Long.compareUnsigned(file.getBytes(), Chunks.CHUNK * ((1L << 32) - 1)) <= 0
            && file.getKey().size() == 32
            && file.getCiphertextSha256().size() == 32,
        "wrong form of a manifest");
    return file;
  }

  /** The channel keys of a sender, by the sender's fingerprint and the id of the channel key. */
  Map<List<Object>, ByteString> kept(User sender) {
    return channelKeys.computeIfAbsent(sender, s -> newest(CHANNEL_KEYS));
  }

  private Key senderKey(User sender, ByteString fingerprint) throws Exception {
    Key key = keys.find(sender, fingerprint); // never from the message
    require(key.fingerprint().equals(fingerprint), "signed by another key than the sender's");
    return key;
  }

  private static ByteString openPost(ByteString channelKey, PostStatement said, PostHeader header)
      throws GeneralSecurityException {
    return decrypt(
        postKey(channelKey, header),
        said.getNonce(),
        said.getHeader(),
        said.getCiphertext(),
        said.getKeyCommitment());
  }

  private static ByteString decrypt(
      ByteString key,
      ByteString nonce,
      ByteString header,
      ByteString ciphertext,
      ByteString commitment)
      throws GeneralSecurityException {
    // GCM alone does not commit to its key.
    require(sha256(label("socp.v1.KeyCommitment"), key).equals(commitment), "another key");
    return gcm(Cipher.DECRYPT_MODE, key, nonce, header, ciphertext);
  }

  private static String utf8(ByteString plain) throws Exception {
    return StandardCharsets.UTF_8.newDecoder().decode(plain.asReadOnlyByteBuffer()).toString();
  }

  private static void checkForm(int suite, String id, User user, ByteString fingerprint)
      throws GeneralSecurityException {
    require(suite == 1, "another suite");
    require(
        id.matches(UUID7)
            && user.name().matches("[a-z0-9._-]{1,64}")
            && user.home().matches("[0-9a-f]{64}")
            && fingerprint.size() == 32,
        "wrong form");
  }

  private static void checkForm(ByteString nonce, ByteString commitment)
      throws GeneralSecurityException {
    require(nonce.size() == 12 && commitment.size() == 32, "wrong form");
  }

  private static <K, V> Map<K, V> newest(int most) {
    return new LinkedHashMap<>() {
      @Override
      protected boolean removeEldestEntry(Map.Entry<K, V> eldest) {
        return size() > most;
      }
    };
  }
}

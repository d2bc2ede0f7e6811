package socp.sample;

import static socp.sample.Signing.ED25519_PREFIX;
import static socp.sample.Signing.be;
import static socp.sample.Signing.fingerprint;
import static socp.sample.Signing.hex;
import static socp.sample.Signing.label;
import static socp.sample.Signing.random;
import static socp.sample.Signing.require;
import static socp.sample.Signing.serverKey;
import static socp.sample.Signing.sha256;
import static socp.sample.Signing.sign;
import static socp.sample.Signing.verify;

import com.google.protobuf.ByteString;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.KeyPair;
import java.security.PublicKey;
import java.security.spec.MGF1ParameterSpec;
import java.util.Collections;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.UUID;
import javax.crypto.Cipher;
import javax.crypto.Mac;
import javax.crypto.spec.GCMParameterSpec;
import javax.crypto.spec.OAEPParameterSpec;
import javax.crypto.spec.PSource;
import javax.crypto.spec.SecretKeySpec;
import socp.sample.Signing.Key;
import socp.sample.Signing.User;
import socp.v1.Directory.DirectoryEntry;
import socp.v1.File.FileManifest;
import socp.v1.Message.ChannelKeyWrap;
import socp.v1.Message.MessageHeader;
import socp.v1.Message.MessageStatement;
import socp.v1.Message.Outcome;
import socp.v1.Message.OutcomeKind;
import socp.v1.Message.OutcomeStatement;
import socp.v1.Message.PostHeader;
import socp.v1.Message.PostStatement;
import socp.v1.Message.Receipt;
import socp.v1.Message.ReceiptKind;
import socp.v1.Message.ReceivedOutcome;
import socp.v1.Message.ReceivedPost;
import socp.v1.Message.SealedMessage;
import socp.v1.Message.SealedPost;
import socp.v1.Message.SignedOutcome;

/** How messages and posts are sealed and opened, and what their homes say of them. */
public final class Sealing {
  /**
   * A message or post that opened. {@code post} is the header of a post, else null. {@code file}
   * says what a message brings, for {@link Client#receiveFile}, else null; the text then is for
   * programs that know no files. {@code receipt} is the word of its sender on messages to them, else
   * null; there is no text then.
   */
  public record Opened(
      User sender,
      String id,
      long timeUnixMs,
      ByteString hash,
      String text,
      PostHeader post,
      FileManifest file,
      Receipt receipt) {}

  private static final int STATEMENT_MAX = 67_584;
  private static final String UUID7 =
      "[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}";
  // MGF1 with SHA-256 has to be said: the JDK's default here is SHA-1.
  private static final OAEPParameterSpec OAEP =
      new OAEPParameterSpec(
          "SHA-256", "MGF1", MGF1ParameterSpec.SHA256, PSource.PSpecified.DEFAULT);

  // Sealing.

  /** A UUIDv7: 48 bits of Unix milliseconds, version, variant, the rest random. */
  static String newId() {
    byte[] id = random(16).toByteArray();
    System.arraycopy(be(6, System.currentTimeMillis()).toByteArray(), 0, id, 0, 6);
    id[6] = (byte) (id[6] & 0x0f | 0x70);
    id[8] = (byte) (id[8] & 0x3f | 0x80);
    ByteBuffer halves = ByteBuffer.wrap(id);
    return new UUID(halves.getLong(), halves.getLong()).toString();
  }

  /**
   * Seals a text to a user. The key is the recipient's, verified and in agreement with the pin; the
   * file is what the message brings, or null.
   */
  static SealedMessage seal(
      User me, KeyPair own, User to, Key key, String text, FileManifest file, String label)
      throws GeneralSecurityException {
    ByteString header =
        MessageHeader.newBuilder()
            .setSuite(1)
            .setMessageId(newId())
            .setSender(me.name())
            .setSenderHomeId(me.home())
            .setSenderKeySha256(fingerprint(own))
            .setRecipient(to.name())
            .setRecipientHomeId(to.home())
            .setRecipientKeySha256(key.fingerprint())
            .setTimeUnixMs(System.currentTimeMillis())
            .build()
            .toByteString();
    ByteString contentKey = random(32);
    ByteString nonce = random(12);
    ByteString plain = ByteString.copyFromUtf8(text);
    MessageStatement.Builder said =
        MessageStatement.newBuilder()
            .setHeader(header)
            .setNonce(nonce)
            .setCiphertext(gcm(Cipher.ENCRYPT_MODE, contentKey, nonce, header, plain))
            .setKeyCommitment(sha256(label("socp.v1.KeyCommitment"), contentKey));
    if (file != null) {
      ByteString fileNonce = random(12);
      ByteString about = Transfer.additionalData(header);
      said.setFileNonce(fileNonce)
          .setFileCiphertext(
              gcm(Cipher.ENCRYPT_MODE, contentKey, fileNonce, about, file.toByteString()));
    }
    ByteString statement = said.build().toByteString();
    return SealedMessage.newBuilder()
        .setStatement(statement)
        .setSignature(sign(own.getPrivate(), label, statement))
        .setWrappedKey(wrap(key, contentKey))
        .build();
  }

  /**
   * The channel key of this device, the statement hash of all for whom it was wrapped, and which
   * entries of the view surely got it.
   */
  static final class ChannelKey {
    final ByteString key = random(32);
    final ByteString id = random(16);
    final Map<User, ByteString> given = new HashMap<>();
    final Map<User, DirectoryEntry> holders = new HashMap<>();
    private long counter = 0;

    SealedPost seal(User me, KeyPair own, String text) throws GeneralSecurityException {
      PostHeader said =
          PostHeader.newBuilder()
              .setSuite(1)
              .setMessageId(newId())
              .setSender(me.name())
              .setSenderHomeId(me.home())
              .setSenderKeySha256(fingerprint(own))
              .setChannel("public")
              .setKeyId(id)
              .setSalt(random(32))
              .setCounter(counter++)
              .setTimeUnixMs(System.currentTimeMillis())
              .build();
      ByteString header = said.toByteString();
      ByteString postKey = postKey(key, said);
      ByteString nonce = random(12);
      ByteString plain = ByteString.copyFromUtf8(text);
      ByteString statement =
          PostStatement.newBuilder()
              .setHeader(header)
              .setNonce(nonce)
              .setCiphertext(gcm(Cipher.ENCRYPT_MODE, postKey, nonce, header, plain))
              .setKeyCommitment(sha256(label("socp.v1.KeyCommitment"), postKey))
              .build()
              .toByteString();
      return SealedPost.newBuilder()
          .setStatement(statement)
          .setSignature(sign(own.getPrivate(), "socp.v1.PostStatement", statement))
          .build();
    }

    ChannelKeyWrap wrapFor(User member, Key memberKey) throws GeneralSecurityException {
      return ChannelKeyWrap.newBuilder()
          .setRecipient(member.name())
          .setRecipientHomeId(member.home())
          .setRecipientKeySha256(memberKey.fingerprint())
          .setWrappedKey(wrap(memberKey, key))
          .build();
    }
  }

  /** HKDF-SHA-256 (RFC 5869); one block of output is all that is wanted. */
  private static ByteString postKey(ByteString channelKey, PostHeader header)
      throws GeneralSecurityException {
    ByteString info =
        label("socp.v1.PostKey").concat(ByteString.copyFromUtf8(header.getMessageId()));
    ByteString extracted = hmac(header.getSalt(), channelKey);
    return hmac(extracted, info.concat(ByteString.copyFrom(new byte[] {1})));
  }

  private static ByteString hmac(ByteString key, ByteString data) throws GeneralSecurityException {
    Mac mac = Mac.getInstance("HmacSHA256");
    mac.init(new SecretKeySpec(key.toByteArray(), "HmacSHA256"));
    return ByteString.copyFrom(mac.doFinal(data.toByteArray()));
  }

  private static ByteString gcm(
      int mode, ByteString key, ByteString nonce, ByteString header, ByteString input)
      throws GeneralSecurityException {
    // The JDK throws an unchecked exception where not even a tag is there.
    require(mode == Cipher.ENCRYPT_MODE || input.size() >= Chunks.TAG, "no whole ciphertext");
    Cipher cipher = Cipher.getInstance("AES/GCM/NoPadding");
    SecretKeySpec secret = new SecretKeySpec(key.toByteArray(), "AES");
    cipher.init(mode, secret, new GCMParameterSpec(128, nonce.toByteArray()));
    cipher.updateAAD(header.toByteArray());
    return ByteString.copyFrom(cipher.doFinal(input.toByteArray()));
  }

  private static ByteString wrap(Key to, ByteString secret) throws GeneralSecurityException {
    Cipher cipher = Cipher.getInstance("RSA/ECB/OAEPPadding");
    cipher.init(Cipher.ENCRYPT_MODE, to.rsa(), OAEP);
    return ByteString.copyFrom(cipher.doFinal(secret.toByteArray()));
  }

  private static ByteString unwrap(KeyPair own, ByteString wrapped)
      throws GeneralSecurityException {
    require(wrapped.size() == 512, "wrapped key of a wrong size");
    Cipher cipher = Cipher.getInstance("RSA/ECB/OAEPPadding");
    cipher.init(Cipher.DECRYPT_MODE, own.getPrivate(), OAEP);
    ByteString secret = ByteString.copyFrom(cipher.doFinal(wrapped.toByteArray()));
    require(secret.size() == 32, "wrapped key of a wrong size");
    return secret;
  }

  // What became of it.

  /**
   * What became of the statement with a hash, which was sent to a user of {@code home}, by that
   * home's word. That it is queued, or was given up, is the word of the own home, which has no
   * other.
   */
  static Outcome readOutcome(SignedOutcome signed, String home, String ownHome, ByteString hash)
      throws Exception {
    ByteString der = ED25519_PREFIX.concat(signed.getHomeKey());
    String signer = hex(sha256(der));
    require(signer.equals(home) || signer.equals(ownHome), "the word of another home");
    PublicKey key = serverKey(der, signer);
    verify(key, "socp.v1.OutcomeStatement", signed.getStatement(), signed.getSignature());
    OutcomeStatement said = OutcomeStatement.parseFrom(signed.getStatement());
    require(said.getHomeId().equals(signer), "the word of another home");
    for (Outcome outcome : said.getOutcomesList()) {
      if (outcome.getStatementSha256().equals(hash)) {
        String speaker =
            switch (outcome.getKind()) {
              case OUTCOME_KIND_HANDED_OVER, OUTCOME_KIND_STORED, OUTCOME_KIND_REJECTED -> home;
              case OUTCOME_KIND_QUEUED, OUTCOME_KIND_EXPIRED -> ownHome;
              default -> "";
            };
        require(signer.equals(speaker), "of no known kind, or not for this home to say");
        return outcome;
      }
    }
    throw new GeneralSecurityException("the home says nothing of this message");
  }

  /** What became of a message that was queued; {@code sent} is its hash, or null if not known. */
  static Outcome readSettled(ReceivedOutcome received, String ownHome, ByteString sent)
      throws Exception {
    OutcomeStatement said = OutcomeStatement.parseFrom(received.getOutcome().getStatement());
    require(said.getOutcomesCount() == 1, "outcomes of several messages");
    ByteString hash = sent != null ? sent : said.getOutcomes(0).getStatementSha256();
    String home = received.getRecipientHomeId();
    Outcome outcome = readOutcome(received.getOutcome(), home, ownHome, hash);
    require(outcome.getKind() != OutcomeKind.OUTCOME_KIND_QUEUED, "still queued");
    return outcome;
  }

  // Opening.

  /** Finds a user's key in the view or by GetUser, checked against the pin. */
  interface Keys {
    Key find(User user, ByteString fingerprint) throws Exception;
  }

  /** Opens what arrives, in the order that the protocol gives, and knows repeats. */
  static final class Inbox {
    private static final int REMEMBERED = 100_000;
    private static final int CHANNEL_KEYS = 64;
    private final User me;
    private final KeyPair own;
    private final Keys keys;
    // Sender and id. A client that must know repeats after a restart keeps them on disk.
    private final Set<List<Object>> seen = Collections.newSetFromMap(newest(REMEMBERED));
    private final Map<User, Map<List<Object>, ByteString>> channelKeys = new LinkedHashMap<>();

    Inbox(User me, KeyPair own, Keys keys) {
      this.me = me;
      this.own = own;
      this.keys = keys;
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
      return new Opened(sender, id, header.getTimeUnixMs(), hash, text, null, file, receipt);
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
        channelKey = unwrap(own, received.getWrappedChannelKey());
        plain = openPost(channelKey, said, header);
      }
      String text = utf8(plain);
      kept(sender).put(which, channelKey);
      seen.add(List.of(sender, header.getMessageId()));
      ByteString hash = sha256(sealed.getStatement());
      String id = header.getMessageId();
      return new Opened(sender, id, header.getTimeUnixMs(), hash, text, header, null, null);
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
}

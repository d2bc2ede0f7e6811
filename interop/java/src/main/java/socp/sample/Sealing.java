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
import java.security.GeneralSecurityException;
import java.security.KeyPair;
import java.security.PublicKey;
import java.security.spec.MGF1ParameterSpec;
import java.util.HashMap;
import java.util.Map;
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
import socp.v1.Message.ReceivedOutcome;
import socp.v1.Message.SealedMessage;
import socp.v1.Message.SealedPost;
import socp.v1.Message.SignedOutcome;

/** How messages and posts are sealed, and what their homes say of them. */
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
      Receipt receipt,
      boolean wantsReceipts) {}

  /** What a message says: a text, with a file that it brings, or a receipt and no text. */
  public record Content(String text, FileManifest file, Receipt receipt, boolean wantsReceipts) {
    static Content of(String text) {
      return new Content(text, null, null, false);
    }

    static Content of(Receipt receipt) {
      return new Content("", null, receipt, false);
    }
  }

  static final String UUID7 =
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
   * Seals a message to a user. The key is the recipient's, verified and in agreement with the pin.
   */
  static SealedMessage seal(
      User me, KeyPair own, User to, Key key, Content content, String label)
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
            .setWantsReceipts(content.wantsReceipts())
            .build()
            .toByteString();
    ByteString contentKey = random(32);
    ByteString nonce = random(12);
    ByteString plain = ByteString.copyFromUtf8(content.text());
    MessageStatement.Builder said =
        MessageStatement.newBuilder()
            .setHeader(header)
            .setNonce(nonce)
            .setCiphertext(gcm(Cipher.ENCRYPT_MODE, contentKey, nonce, header, plain))
            .setKeyCommitment(sha256(label("socp.v1.KeyCommitment"), contentKey));
    if (content.file() != null) {
      ByteString fileNonce = random(12);
      ByteString about = Transfer.additionalData(header);
      ByteString file = content.file().toByteString();
      said.setFileNonce(fileNonce)
          .setFileCiphertext(gcm(Cipher.ENCRYPT_MODE, contentKey, fileNonce, about, file));
    }
    if (content.receipt() != null) {
      ByteString receiptNonce = random(12);
      ByteString about = label("socp.v1.Receipt").concat(header);
      ByteString receipt = content.receipt().toByteString();
      said.setReceiptNonce(receiptNonce)
          .setReceiptCiphertext(gcm(Cipher.ENCRYPT_MODE, contentKey, receiptNonce, about, receipt));
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
  static ByteString postKey(ByteString channelKey, PostHeader header)
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

  static ByteString gcm(
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

  static ByteString unwrap(KeyPair own, ByteString wrapped)
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
}

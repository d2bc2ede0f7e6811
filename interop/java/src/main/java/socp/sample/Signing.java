package socp.sample;

import com.google.protobuf.ByteString;
import java.math.BigInteger;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.security.GeneralSecurityException;
import java.security.KeyFactory;
import java.security.KeyPair;
import java.security.MessageDigest;
import java.security.PrivateKey;
import java.security.PublicKey;
import java.security.SecureRandom;
import java.security.Signature;
import java.security.interfaces.RSAPublicKey;
import java.security.spec.MGF1ParameterSpec;
import java.security.spec.PSSParameterSpec;
import java.security.spec.X509EncodedKeySpec;
import java.util.Arrays;
import java.util.Collection;
import java.util.HexFormat;
import java.util.List;
import socp.v1.Account.GetServerInfoResponse;
import socp.v1.Directory.DirectoryEntry;
import socp.v1.Statement.CertificateStatement;
import socp.v1.Statement.KeyStatement;
import socp.v1.Statement.SignedKeyStatement;

/**
 * What is signed and hashed, with the JDK's own cryptography and without network.
 *
 * <p>"A receiver checks the signature over the bytes as they came": nothing here encodes a
 * statement a second time. Whatever does not check out is a {@link GeneralSecurityException}.
 */
public final class Signing {
  /** What identifies a user: the bare name and the home's id. Server names are labels. */
  public record User(String name, String home) {}

  /** The key of a verified statement, and what a pin compares. */
  public record Key(long number, ByteString fingerprint, PublicKey rsa, ByteString hash) {}

  /** A key that does not agree with the pin: to be told to the person, loudly. */
  public static final class KeyChanged extends GeneralSecurityException {
    KeyChanged(User user) {
      super("the key of " + user + " is not the pinned one, and no chain leads to it");
    }
  }

  private static final SecureRandom RANDOM = new SecureRandom();
  private static final PSSParameterSpec PSS =
      new PSSParameterSpec("SHA-256", "MGF1", MGF1ParameterSpec.SHA256, 32, 1);
  static final ByteString ED25519_PREFIX = ByteString.fromHex("302a300506032b6570032100");

  // Hashes and signatures.

  static void require(boolean holds, String what) throws GeneralSecurityException {
    if (!holds) {
      throw new GeneralSecurityException(what);
    }
  }

  static ByteString random(int length) {
    byte[] bytes = new byte[length];
    RANDOM.nextBytes(bytes);
    return ByteString.copyFrom(bytes);
  }

  static String hex(ByteString bytes) {
    return HexFormat.of().formatHex(bytes.toByteArray());
  }

  static ByteString sha256(ByteString... parts) {
    try {
      MessageDigest sha = MessageDigest.getInstance("SHA-256");
      for (ByteString part : parts) {
        sha.update(part.asReadOnlyByteBuffer());
      }
      return ByteString.copyFrom(sha.digest());
    } catch (GeneralSecurityException e) {
      throw new IllegalStateException(e); // every JDK has it
    }
  }

  /** A label: its ASCII characters and one zero byte. */
  static ByteString label(String label) {
    return ByteString.copyFromUtf8(label + "\0");
  }

  /** RSASSA-PSS over {@code label || statement}. */
  static ByteString sign(PrivateKey key, String label, ByteString statement)
      throws GeneralSecurityException {
    Signature signature = Signature.getInstance("RSASSA-PSS");
    signature.setParameter(PSS);
    signature.initSign(key);
    signature.update(label(label).concat(statement).toByteArray());
    return ByteString.copyFrom(signature.sign());
  }

  static void verify(PublicKey key, String label, ByteString statement, ByteString signature)
      throws GeneralSecurityException {
    boolean user = key instanceof RSAPublicKey;
    Signature check = Signature.getInstance(user ? "RSASSA-PSS" : "Ed25519");
    if (user) {
      check.setParameter(PSS);
    }
    check.initVerify(key);
    check.update(label(label).concat(statement).toByteArray());
    require(
        signature.size() == (user ? 512 : 64) && check.verify(signature.toByteArray()),
        "bad signature under " + label);
  }

  static ByteString fingerprint(KeyPair key) {
    return sha256(ByteString.copyFrom(key.getPublic().getEncoded()));
  }

  /** The one acceptable form: 4096 bits, exponent 65537, and no other encoding of the same key. */
  static PublicKey userKey(ByteString der) throws GeneralSecurityException {
    PublicKey key =
        KeyFactory.getInstance("RSA").generatePublic(new X509EncodedKeySpec(der.toByteArray()));
    require(
        key instanceof RSAPublicKey rsa
            && rsa.getModulus().bitLength() == 4096
            && rsa.getModulus().testBit(0)
            && rsa.getPublicExponent().equals(BigInteger.valueOf(65537))
            && Arrays.equals(key.getEncoded(), der.toByteArray()),
        "not an RSA-4096 key");
    return key;
  }

  /** The server key in a SubjectPublicKeyInfo whose SHA-256 is the id. */
  static PublicKey serverKey(ByteString der, String id) throws GeneralSecurityException {
    require(der.size() == 44 && der.startsWith(ED25519_PREFIX), "not an Ed25519 key");
    require(hex(sha256(der)).equals(id), "another server's key");
    return KeyFactory.getInstance("Ed25519")
        .generatePublic(new X509EncodedKeySpec(der.toByteArray()));
  }

  /**
   * Checks that what {@code GetServerInfo} says is the pinned server's word. The key is that of the
   * certificate of the connection that it came over.
   */
  static void checkServer(GetServerInfoResponse info, String pinned, ByteString certificateKey)
      throws Exception {
    verify(
        serverKey(info.getIdentityKey(), pinned),
        "socp.v1.CertificateStatement",
        info.getCertificateStatement(),
        info.getCertificateSignature());
    CertificateStatement said = CertificateStatement.parseFrom(info.getCertificateStatement());
    require(
        info.getServerId().equals(pinned) && said.getServerId().equals(pinned),
        "the certificate of another server");
    require(said.getCertificateKeySha256().equals(sha256(certificateKey)), "another certificate");
    require(
        info.getProtocolVersion().split("\\.")[0].equals("1"),
        "another major version of the protocol");
  }

  // Key statements.

  static SignedKeyStatement firstStatement(User me, KeyPair key) throws GeneralSecurityException {
    ByteString statement =
        KeyStatement.newBuilder()
            .setUser(me.name())
            .setHomeId(me.home())
            .setPublicKey(ByteString.copyFrom(key.getPublic().getEncoded()))
            .setNumber(1)
            .build()
            .toByteString();
    return SignedKeyStatement.newBuilder()
        .setStatement(statement)
        .setSignature(sign(key.getPrivate(), "socp.v1.KeyStatement", statement))
        .build();
  }

  /** Reads the key statement of a user; {@code hash} is the entry's, or null if none names it. */
  static Key readStatement(SignedKeyStatement signed, User user, ByteString hash) throws Exception {
    ByteString found = label("socp.v1.SignedKeyStatement");
    int size = 0;
    for (ByteString part :
        List.of(signed.getStatement(), signed.getSignature(), signed.getPreviousSignature())) {
      found = found.concat(be(4, part.size())).concat(part);
      size += part.size();
    }
    found = sha256(found);
    require(size <= 8192, "key statement too large");
    KeyStatement said = KeyStatement.parseFrom(signed.getStatement());
    require(
        said.getUser().equals(user.name()) && said.getHomeId().equals(user.home()),
        "key statement of another user");
    PublicKey key = userKey(said.getPublicKey());
    boolean first = said.getNumber() == 1;
    require(
        said.getNumber() != 0
            && said.getPreviousSha256().size() == (first ? 0 : 32)
            && signed.getPreviousSignature().size() == (first ? 0 : 512),
        "key statement of a wrong form");
    require(hash == null || hash.equals(found), "not the statement that the entry names");
    verify(key, "socp.v1.KeyStatement", signed.getStatement(), signed.getSignature());
    return new Key(said.getNumber(), sha256(said.getPublicKey()), key, found);
  }

  /** Reads the statement that follows {@code before}: signed by the key before it too. */
  static Key readNext(Key before, SignedKeyStatement signed, User user, ByteString hash)
      throws Exception {
    Key key = readStatement(signed, user, hash);
    KeyStatement said = KeyStatement.parseFrom(signed.getStatement());
    require(
        key.number() == before.number() + 1 && said.getPreviousSha256().equals(before.hash()),
        "a gap in the chain");
    verify(
        before.rsa(), "socp.v1.KeyStatement", signed.getStatement(), signed.getPreviousSignature());
    return key;
  }

  // The digest of a directory.

  static ByteString digest(Collection<DirectoryEntry> entries) {
    short[] sums = new short[1024]; // Java's short overflows modulo 2^16, as is wanted
    for (DirectoryEntry entry : entries) {
      ByteString seed =
          sha256(
              label("socp.v1.DigestEntry"),
              ByteString.fromHex(entry.getServerId()),
              be(8, entry.getEpoch()),
              text(entry.getName()),
              text(entry.getDisplayName()),
              text(entry.getStatus()),
              entry.getKeyStatementSha256(),
              be(8, entry.getOnlineSince()),
              be(8, Integer.toUnsignedLong(entry.getSessions())));
      for (int i = 0; i < 64; i++) {
        ByteBuffer block = little(sha256(seed, be(4, i)).toByteArray());
        for (int k = 0; k < 16; k++) {
          sums[16 * i + k] += block.getShort();
        }
      }
    }
    byte[] bytes = new byte[2048];
    little(bytes).asShortBuffer().put(sums);
    return sha256(label("socp.v1.Digest"), ByteString.copyFrom(bytes));
  }

  private static ByteString text(String text) {
    ByteString utf8 = ByteString.copyFromUtf8(text);
    return be(8, utf8.size()).concat(utf8);
  }

  static ByteString be(int length, long number) {
    byte[] bytes = ByteBuffer.allocate(8).putLong(number).array();
    return ByteString.copyFrom(bytes, 8 - length, length);
  }

  private static ByteBuffer little(byte[] bytes) {
    return ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN);
  }
}

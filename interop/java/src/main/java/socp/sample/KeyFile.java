package socp.sample;

import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.security.KeyFactory;
import java.security.KeyPair;
import java.security.KeyPairGenerator;
import java.security.interfaces.RSAPrivateCrtKey;
import java.security.spec.PKCS8EncodedKeySpec;
import java.security.spec.RSAPublicKeySpec;
import java.util.Base64;

/** Where the private key of the exchange is kept: PEM, PKCS#8. */
final class KeyFile {
  private KeyFile() {}

  static KeyPair make() throws Exception {
    KeyPairGenerator generator = KeyPairGenerator.getInstance("RSA");
    generator.initialize(4096);
    return generator.generateKeyPair();
  }

  static KeyPair readOrMake(Path file) throws Exception {
    if (!Files.exists(file)) {
      KeyPair made = make();
      String body =
          Base64.getMimeEncoder(64, new byte[] {'\n'})
              .encodeToString(made.getPrivate().getEncoded());
      Files.createFile(
          file, PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString("rw-------")));
      Files.writeString(
          file, "-----BEGIN PRIVATE KEY-----\n" + body + "\n-----END PRIVATE KEY-----\n");
      return made;
    }
    String body = Files.readString(file).replaceAll("-----[A-Z ]+-----", "");
    KeyFactory factory = KeyFactory.getInstance("RSA");
    RSAPrivateCrtKey secret =
        (RSAPrivateCrtKey)
            factory.generatePrivate(new PKCS8EncodedKeySpec(Base64.getMimeDecoder().decode(body)));
    return new KeyPair(
        factory.generatePublic(
            new RSAPublicKeySpec(secret.getModulus(), secret.getPublicExponent())),
        secret);
  }
}

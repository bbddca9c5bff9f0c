"""Words that are tried first, without the digits and signs that people put around them."""

from typing import Final

COMMON: Final = frozenset(
    """
    aabbcc abcabc abcdef abcdefg abcdefgh abcdefghi abcdefghijkl abcdefghijklm abcdefghijklmnop
    abcdefghijklmnopqrstuvwxyz abracadabra access admin adminadmin administrateur administrator
    adminpassword amanda america andrew android angel angels anthony apple april arsenal asdf asdfgh
    asdfghjkl asdfghjklqwertyuiop ashley auditor august australia autumn azerty azertyuiop babyboy babygirl
    bailey banana barcelona baseball basketball batman bella berlin blessed bonjour brazil brother business
    buster butterfly canada change changeme changepassword changethis charlie chelsea cherry china chocolate
    christmas cisco company computer cookie correcthorse correcthorsebatterystaple corvette cowboys crystal
    customer daisy daniel database december default demo demodemo device diamond dollar dragon eagles
    electric electricity energy england example facebook faith family father february ferrari flower flowers
    football forever fortnite france freedom friday friends gandalf gateway george germany ginger gnomon
    golden google guest guestpassword hacker hallo harley heaven hello helloworld hockey hola holiday honey
    hunter ilove iloveyou iloveyouforever iloveyousomuch india instagram installer internet iphone ironman
    january japan jasper jennifer jessica jesus jesuschrist jordan joshua july june juventus killer lakers
    letmein letmeinletmein letmeinplease linkedin linux liverpool lkjhgfdsa login london love lovely loveyou
    lucky maggie march master matrix matthew mercedes merlin meter mexico michael microsoft million
    minecraft mnbvcxz molly monday money monkey mother mountain mustang mypassword mysecret newpassword
    nicole ninja nopassword november ocean october officer onetwothree onetwothreefour opensesame openup
    operator oracle orange paris pass passwd password password1password passwordadmin passwordpassword
    passwort pepper phoenix pikachu poiuytrewq pokemon porsche power powergrid princess purple qazwsx
    qazwsxedc qwerty qwertyqwerty qwertyuiop qwertyuiopas qwertyuiopasdfghjkl qwertzuiop rainbow realmadrid
    robert rocky root rootpassword rootroot router sample samsung saturday scooter secret security september
    server service services shadow silver sister smartgrid smarthome snoopy soccer sparky spiderman spring
    starwars station steelers substation summer sunday sunflower sunset sunshine superadmin
    supercalifragilisticexpialidocious superman supersecret superuser support sweetheart sweetie sysadmin
    systemadmin temp temporary temppassword test tester testing testtest thepassword thermostat thomas
    thursday tigger toor topsecret toyota trustno trustnoone tuesday twitter ubuntu user userpassword
    utility vacation verysecret warrior wednesday weekend welcome welcomeback welcomehome welcometo
    welcomewelcome whatever william windows winter wizard yamaha yankees yellow yourpassword youtube zxcvbn
    zxcvbnm
    """.split()  # noqa: SIM905 - a word a line would be 300 lines
)

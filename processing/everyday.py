"""Everyday things and stuff, by theme, one class per line as [`read_class_lines`] takes them: a module rather than a
text file, since the Hub's remote code brings modules alone.

The choice is this project's own, under its licence; it covers what the [`PUBLISHED_CLASSES`] name, in plain English
singulars."""

EVERYDAY_CLASSES = """
# People, and what is seen of them
person
man
woman
child
boy
girl
baby
crowd
bride
groom
police officer, policeman
firefighter, fireman
soldier
doctor
nurse
chef
waiter
farmer
construction worker
athlete
dancer
musician
clown
cyclist
skier
surfer
face
eye
nose
mouth
ear
hair [stuff]
beard
hand
finger
arm
leg
foot
tattoo
skeleton
skull
# Mammals
animal
dog
puppy
poodle
cat
kitten
horse
foal
donkey
cow
calf
bull
sheep
lamb
goat
pig
rabbit
hamster
guinea pig
mouse
rat
squirrel
chipmunk
beaver
hedgehog
porcupine
mole
bat
fox
wolf
bear
polar bear
panda
koala
kangaroo
raccoon
skunk
badger
otter
weasel
lion
tiger
leopard
cheetah
jaguar
lynx
hyena
elephant
rhinoceros, rhino
hippopotamus, hippo
giraffe
zebra
deer
moose
reindeer
antelope
buffalo
bison
camel
llama
monkey
gorilla
chimpanzee
orangutan
lemur
sloth
anteater
armadillo
platypus
opossum
seal
sea lion
walrus
dolphin
whale
unicorn
# Birds
bird
chicken, hen
rooster
chick
duck
goose
swan
turkey
peacock
pigeon
dove
crow
sparrow
robin
woodpecker
hummingbird
parrot
toucan
owl
eagle
hawk
vulture
seagull
pelican
heron
stork
crane
flamingo
penguin
ostrich
puffin
kingfisher
bird nest, nest
egg
# Reptiles, amphibians, and what lives in water
crocodile, alligator
turtle, tortoise
snake
lizard
chameleon
iguana
dinosaur
dragon
frog
toad
fish
tropical fish
goldfish
salmon
tuna
seahorse
stingray
shark
octopus
squid
jellyfish
starfish
crab
lobster
shrimp, prawn
oyster
mussel
seashell
coral
# Insects and other small animals
ant
bee
wasp
fly
mosquito
butterfly
moth
caterpillar
dragonfly
ladybug, ladybird
beetle
grasshopper
cricket
cockroach
spider
spider web, cobweb
scorpion
snail
worm
beehive
# Fruit and nuts
fruit
apple
green apple
pear
peach
plum
apricot
cherry
grape
strawberry
raspberry
blueberry
blackberry
orange, tangerine
lemon
lime
grapefruit
banana
pineapple
mango
kiwi
coconut
melon
watermelon
fig
date
pomegranate
avocado
olive
nut
walnut
peanut
chestnut
acorn
# Vegetables, herbs and mushrooms
vegetable
tomato
potato
sweet potato
carrot
onion
garlic
cabbage
lettuce
spinach
broccoli
cauliflower
Brussels sprout
celery
asparagus
artichoke
cucumber
zucchini, courgette
eggplant, aubergine
pumpkin, squash
bell pepper
chili pepper
corn, maize
pea
bean
radish
beet, beetroot
ginger
mushroom, toadstool
parsley
# Meals and snacks
food
bread
bun, bread roll
bagel
toast
croissant
pretzel
muffin
pancake
waffle
sandwich
hamburger, burger
hot dog
french fries
pizza
pasta, spaghetti
noodle
rice
soup
stew
salad
sushi
taco
burrito
dumpling
omelet
fried egg
bacon
ham
sausage
steak
meatball
kebab
cheese
butter
yogurt
cereal
popcorn
potato chip, crisp
cracker
# Sweets
cake
birthday cake
cupcake
pie
doughnut, donut
cookie, biscuit
ice cream
chocolate
chocolate bar
candy, sweet
lollipop
cotton candy
honey
jam
sugar
# Drinks
coffee
tea
milk
juice
soda
beer
wine
cocktail
glass of milk
coffee cup
teacup
beer mug
wine glass
drinking straw
# Trees, flowers and other plants
tree
palm tree
pine tree, fir tree
oak tree
willow
Christmas tree
bonsai
bush, shrub
hedge
plant
potted plant
cactus
fern
bamboo
ivy
vine
clover
four-leaf clover
seaweed
wheat
flower
rose
tulip
sunflower
daisy
lily
orchid
lotus
daffodil
dandelion
cherry blossom
bouquet
wreath
petal
leaf
branch
log
tree stump
root
seed
pine cone
# Cars, trucks and other vehicles on the road
car, automobile
sports car
racing car
convertible
jeep
van
truck, lorry
trailer
garbage truck
dump truck
tow truck
fire engine, fire truck
ambulance
police car
taxi, cab
bus
double-decker bus
school bus
camper, motorhome
tractor
bulldozer
excavator
forklift
cement mixer
motorcycle, motorbike
motor scooter
bicycle, bike
tricycle
unicycle
kick scooter
skateboard
golf cart
carriage
cart
wheelbarrow
stroller, pram
wheelchair
sled, sleigh
snowmobile
tank
# Trains, boats and aircraft
train
locomotive, steam engine
subway train
tram, streetcar
cable car
boat
rowboat
canoe
kayak
sailboat, sailing boat
yacht
ferry
cruise ship
ship
container ship
submarine
gondola
airplane, plane
jet
fighter jet
helicopter
drone
hot-air balloon
parachute
rocket
space shuttle
satellite
flying saucer
# Parts of vehicles, and what stands by the road
wheel
tire, tyre
steering wheel
headlight
license plate
propeller
anchor
oar, paddle
life jacket
life buoy
traffic light
street light, lamppost
sign
street sign
stop sign
traffic cone
parking meter
fire hydrant
mailbox, letterbox
trash can, dustbin
dumpster
bus stop
vending machine
gas pump
pole
utility pole
manhole cover
billboard
flag
flagpole
banner
railroad crossing
hay bale
scarecrow
tombstone
# Buildings and their parts
house
hut
barn
shed
garage
tent
igloo
castle
palace
tower
skyscraper
building [stuff]
factory
church
mosque
temple
pagoda
pyramid
stadium
grandstand
shop, store
gas station
train station
airport
hangar
lighthouse
windmill
wind turbine
water tower
greenhouse
treehouse
doghouse, kennel
birdhouse
chimney
dome
arch
column, pillar
balcony
porch
awning, canopy
roof [stuff]
window
shutter
door
gate
staircase, stairs
escalator
elevator
ladder
railing [stuff]
ramp
bridge
tunnel
dam
pier, jetty
well
fountain
swimming pool
statue, sculpture
monument
antenna
satellite dish
solar panel
scaffolding [stuff]
# Furniture
chair
armchair
rocking chair
high chair
stool
bench
couch, sofa
bed
crib, cot
hammock
table
dining table
coffee table
desk
nightstand
dresser, chest of drawers
wardrobe
cabinet, cupboard
bookcase, bookshelf
shelf
drawer
coat rack
blackboard
whiteboard
counter, countertop
safe
# In the living room and the bedroom
lamp
chandelier
lantern
light bulb
candle
candlestick
fireplace
radiator
fan
air conditioner
heater
clock
alarm clock
hourglass
mirror
picture frame, picture
painting
poster
photograph
vase
flowerpot
pillow
cushion
blanket
sheet
mattress
curtain [stuff]
window blind [stuff]
carpet [stuff]
rug
tablecloth
ashtray
piggy bank
clothes hanger
fire extinguisher
# In the kitchen
stove
oven
microwave
refrigerator, fridge
freezer
dishwasher
sink
faucet, tap
range hood
toaster
kettle
coffee maker
blender
scale
pot
frying pan
wok
pressure cooker
baking tray
cutting board
rolling pin
whisk
ladle
spatula
tongs
grater
colander
strainer
funnel
can opener
corkscrew
knife
fork
spoon
chopsticks
plate
bowl
cup
mug
drinking glass
teapot
pitcher, jug
bottle
baby bottle
thermos
jar
tin can, can
lunch box
tray
salt shaker
pepper mill
napkin
paper towel
aluminum foil
apron
grill, barbecue
# In the bathroom, for health and for the face
bathtub
shower
toilet
toilet paper
washbasin
towel
bathrobe
soap
shampoo
sponge
toothbrush
toothpaste
razor
comb
hairbrush
hair dryer
lipstick
perfume
medicine bottle
pill
bandage
syringe
thermometer
stethoscope
crutch
surgical mask
tooth
# Cleaning, washing and mending
broom
mop
bucket
brush
vacuum cleaner
washing machine
laundry basket
clothespin
iron
sewing machine
needle
thread
yarn
button
zipper
# Clothes
shirt
t-shirt
blouse
sweater
vest
jacket
coat
raincoat
suit
dress
wedding dress
skirt
pants, trousers
jeans
shorts
pajamas
underwear
bra
swimsuit
bikini
costume
diaper
sock
shoe
sneaker, running shoe
boot
sandal
flip-flop
slipper
high heel
hat
top hat
cowboy hat
straw hat
cap
helmet
crown
mask
veil
scarf
tie
bow tie
belt
glove
mitten
# What is worn and carried
glasses
sunglasses
goggles
wristwatch, watch
ring
necklace
bracelet
earring
handbag
purse
wallet
backpack
suitcase
briefcase
shopping bag
plastic bag
paper bag
basket
umbrella
walking stick
key
padlock
coin
banknote
credit card
passport
ticket
lighter
match
cigarette
pipe
# Office, school and things to read
book
notebook
magazine
newspaper
letter, envelope
postcard
stamp
calendar
map
menu
card
paper
pencil
pen
crayon
marker
chalk
eraser
ruler
compass
calculator
stapler
paper clip
tape
glue
scissors
pencil sharpener
globe
abacus
paintbrush
palette
easel
printer
wastebasket
# Electronics
television, TV
remote control
radio
record player
vinyl record
compact disc
cassette
speaker
headphones
microphone
megaphone
camera
video camera
tripod
projector
telephone
mobile phone, smartphone
tablet
laptop
computer
computer monitor
computer keyboard
computer mouse
game controller, gamepad
game console
virtual reality headset
router
memory stick
circuit board
cable
power plug
power socket
light switch
battery
charger
robot
security camera
# Tools, machines and what they hold together
tool
hammer
screwdriver
wrench, spanner
pliers
saw
chainsaw
drill
axe
shovel, spade
rake
hoe
pitchfork
pickaxe
scythe
lawn mower
garden hose
sprinkler
watering can
paint roller
tape measure
clamp
nail
screw
bolt
hook
chain
rope
string
wire
spring
gear
magnet
hose
barbed wire
toolbox
magnifying glass
microscope
telescope
binoculars
flashlight, torch
test tube
engine
machine
generator
pump
barrel
crate
pallet
shipping container
gun
pistol
rifle
cannon
sword
dagger
shield
bow
arrow
spear
bomb
whip
# Boxes and bags
box
cardboard box
package, parcel
gift, present
bag
sack
trunk
cage
birdcage
aquarium, fish tank
leash
collar
saddle
horseshoe
# Music
guitar
electric guitar
violin
cello
harp
ukulele
banjo
piano
organ
keyboard
accordion
harmonica
flute
recorder
clarinet
saxophone
trumpet
trombone
tuba
French horn
bagpipe
drum
drum kit
cymbal
xylophone
tambourine
bell
gong
whistle
sheet music
# Sports
ball
soccer ball, football
basketball
volleyball
baseball
baseball bat
baseball glove
tennis ball
tennis racket
table tennis paddle
shuttlecock
golf ball
golf club
bowling ball
bowling pin
billiard table
rugby ball
hockey stick
hockey puck
goal
basketball hoop
net
boxing glove
punching bag
dumbbell
barbell
treadmill
exercise bike
yoga mat
ski
snowboard
ice skate
roller skate
surfboard
diving mask
fishing rod
frisbee, flying disc
dart
dartboard
trophy
medal
trampoline
boomerang
# Toys, games and parties
toy
teddy bear
doll
puppet
toy car
toy train
toy block
building brick
jigsaw puzzle
dice, die
playing card
chessboard
chess piece
board game
spinning top
yo-yo
kite
balloon
pacifier
rubber duck
rocking horse
water gun
slingshot
swing
slide
seesaw
sandbox
merry-go-round, carousel
Ferris wheel
roller coaster
firework
confetti
snowman
jack-o'-lantern
Christmas ornament
Christmas stocking
ribbon
crystal ball
# Sky, weather and light
sky [stuff]
cloud [stuff]
sun
moon
star
planet
rainbow
lightning
rain [stuff]
fog [stuff]
smoke [stuff]
steam [stuff]
fire [stuff]
flame
shadow [stuff]
light
# Land
ground [stuff]
soil, mud [stuff]
grass, lawn [stuff]
sand, beach [stuff]
gravel, pebbles [stuff]
rock
stone [stuff]
cliff [stuff]
mountain [stuff]
hill [stuff]
cave
volcano
lava [stuff]
desert [stuff]
forest [stuff]
field [stuff]
meadow [stuff]
garden [stuff]
vineyard [stuff]
swamp [stuff]
snow [stuff]
ice [stuff]
icicle
glacier [stuff]
foliage, leaves [stuff]
moss [stuff]
hay [stuff]
straw [stuff]
# Water
water, lake [stuff]
sea [stuff]
wave [stuff]
river [stuff]
pond [stuff]
waterfall [stuff]
puddle
foam [stuff]
bubble
# Ways and built ground
road, asphalt [stuff]
runway [stuff]
street [stuff]
highway [stuff]
sidewalk, pavement [stuff]
path [stuff]
dirt road [stuff]
crosswalk
railroad track [stuff]
parking lot [stuff]
playing field [stuff]
tennis court [stuff]
platform [stuff]
stage
curb
cobblestones [stuff]
# Surfaces and materials
wall [stuff]
brick wall, bricks [stuff]
stone wall [stuff]
fence [stuff]
floor [stuff]
ceiling [stuff]
tiles [stuff]
concrete [stuff]
wood, planks [stuff]
marble [stuff]
metal [stuff]
glass [stuff]
mosaic [stuff]
wallpaper [stuff]
fabric, cloth [stuff]
leather [stuff]
wool [stuff]
fur [stuff]
feather
cardboard [stuff]
plastic [stuff]
rubber [stuff]
tarpaulin [stuff]
graffiti [stuff]
paint [stuff]
rubble [stuff]
garbage, rubbish [stuff]
"""
